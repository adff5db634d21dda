"""Checks that sampling, end tokens, logits processors and beam search work on the model's device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.failure import excerpt
from pytest_llmdevice.diagnosis.hints import generation, values
from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.inference.generation import end_tokens, inputs_for, is_encoder_decoder, pad_token
from pytest_llmdevice.inference.logits import continuation_logits
from pytest_llmdevice.model.settings import vocabulary_size
from pytest_llmdevice.model.wrappers import configuration_of, core, generating_module, is_of_transformers

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]
Rows = list[list[int]]

NEW: Final = 4
SEED: Final = 1

UNDECIDED: Final = 0.5
"""The allowed difference of the log-likelihoods of two beam searches, in nats: rounding can drop another beam."""


def check_sampling(model: Any, prompts: Tokens, checkpoint: str) -> Result:
    """Check what `generate` does after the logits, on the model's device.

    Sampling with equal seeds must give equal tokens, end tokens must end sequences, logits processors must forbid and
    force tokens, and beam search must find likely tokens. The model must keep the special token ids of the
    checkpoint's generation configuration; for a model without `generate` only these are checked. The states of random
    generators are restored.

    Args:
        model: the model.
        prompts: token ids of each prompt.
        checkpoint: the local folder of the model.

    Raises:
        DoesNotApply: the model is no model of transformers.
    """
    if not is_of_transformers(model):
        raise DoesNotApply(f"{type(model).__name__} has no generate of transformers, which samples and searches")
    findings = list(_configured(model, checkpoint))
    if not callable(getattr(generating_module(model), "generate", None)):
        return Result("sampling", tuple(findings), {"modules": sum(1 for _ in model.modules()), "generate": "none"})
    given = sorted(prompts, key=len)[:2]
    evidence: dict[str, int | float | str] = {"prompts": len(given)}
    tokens = 0
    with _random_states():
        greedy = None
        for name, part in _PARTS.items():
            try:
                rows, part_findings = part(model, given, greedy)
            except Exception as error:  # noqa: BLE001  # the model runs in it, and may raise anything
                failure = finding_from_exception(error, model, doing=name)
                return Result("sampling", (*findings, failure), evidence, excerpt(error))
            if name == "greedy generation":
                greedy = rows
            tokens += sum(map(len, rows))
            findings += [*part_findings, *_outside(name, rows, model)]
    evidence["tokens"] = tokens
    return Result("sampling", tuple(findings), evidence)


def _greedy(model: Any, prompts: Tokens, _: Rows | None) -> tuple[Rows, list[Finding]]:
    return _rows(model, prompts), []


def _sampled(model: Any, prompts: Tokens, _: Rows | None) -> tuple[Rows, list[Finding]]:
    import torch

    findings = []
    both = []
    for _attempt in range(2):
        torch.manual_seed(SEED)
        output = _generate(
            model,
            prompts,
            do_sample=True,
            temperature=0.7,
            top_k=50,
            top_p=0.95,
            return_dict_in_generate=True,
            output_logits=True,
        )
        both.append(_cut(model, output.sequences, prompts))
        bad = sum(int(step.isnan().sum()) for step in output.logits)
        if bad:
            findings.append(Finding("logits to sample from", "numbers", f"{bad} are nan", values.NONFINITE))
    if both[0] != both[1]:
        expected = f"the same tokens for the same seed: {both[0]}"
        findings.append(Finding("seeded sampling", expected, str(both[1]), generation.UNREPEATED))
    return both[0], findings


def _stopped(model: Any, prompts: Tokens, greedy: Rows | None) -> tuple[Rows, list[Finding]]:
    """Check that an end token, given as a number and in a list, ends its row, and that the rest is padding."""
    assert greedy is not None
    stop = greedy[0][min(2, len(greedy[0]) - 1)]
    taken = {pad_token(model), *(token for row in greedy for token in row)}
    unused = next(token for token in range(len(taken) + 1) if token not in taken)
    findings = []
    rows: Rows = []
    # `min_new_tokens` has suppressed the model's own end tokens so far; now they are suppressed explicitly.
    # But for one that is forced at the greatest length, which cannot be both; no row is longer than that.
    own = sorted(end_tokens(model) - {stop, *_forced(model)}) or None
    for ends in (stop, [unused, stop]):
        rows = _rows(model, prompts, eos_token_id=ends, min_new_tokens=None, suppress_tokens=own)
        for number, (row, whole) in enumerate(zip(rows, greedy, strict=True)):
            count = whole.index(stop) + 1 if stop in whole else len(whole)
            wanted = whole[:count] + [pad_token(model)] * (len(row) - count)
            if row != wanted:
                where = f"prompt {number}, eos_token_id={ends}"
                findings.append(Finding(where, f"{wanted}, ended by {stop}", str(row), generation.STOP_IGNORED))
    return rows, findings


def _forced(model: Any) -> list[int]:
    """The tokens that generation puts at the end of a row of the greatest length, whatever the logits are."""
    forced = getattr(getattr(core(model), "generation_config", None), "forced_eos_token_id", None)
    return [] if forced is None else list(forced) if isinstance(forced, (list, tuple)) else [forced]


def _processed(model: Any, prompts: Tokens, greedy: Rows | None) -> tuple[Rows, list[Finding]]:
    """Check that no forbidden token is generated, that the forced last token is, and that no row ends too early."""
    assert greedy is not None
    banned, last = greedy[0][0], greedy[0][1]
    rows = _rows(
        model,
        prompts,
        eos_token_id=greedy[0][2],
        bad_words_ids=[[banned]],
        repetition_penalty=1.3,
        no_repeat_ngram_size=3,
        forced_eos_token_id=last,
        min_new_tokens=NEW,
    )
    findings = []
    for number, row in enumerate(rows):
        if banned in row and banned != last:
            findings.append(
                Finding(f"prompt {number}, bad_words_ids", f"no token {banned}", str(row), generation.PROCESSORS)
            )
        if len(row) != NEW or row[-1] != last:
            expected = f"{NEW} tokens, the last one {last}"
            findings.append(Finding(f"prompt {number}, forced_eos_token_id", expected, str(row), generation.PROCESSORS))
    return rows, findings


def _beams(model: Any, prompts: Tokens, _: Rows | None) -> tuple[Rows, list[Finding]]:
    """Check that two beams find equally likely tokens with a cache, which must be reordered with them, and without."""
    rows = _rows(model, prompts, num_beams=2)
    without = _rows(model, prompts, num_beams=2, use_cache=False)
    findings = []
    for number, (row, other) in enumerate(zip(rows, without, strict=True)):
        where = f"prompt {number}, two beams"
        if len(row) != NEW:
            findings.append(Finding(where, f"{NEW} new tokens", f"{len(row)}: {row}", generation.BEAMS))
        elif row != other:
            likely, unlikely = (_likelihood(model, prompts[number], tokens) for tokens in (other, row))
            if not unlikely >= likely - UNDECIDED:
                expected = f"{other}, as without a cache, or as likely"
                actual = f"{row}, {likely - unlikely:.3g} nats less likely"
                findings.append(Finding(where, expected, actual, generation.BEAMS))
    return rows, findings


def _likelihood(model: Any, prompt: Sequence[int], tokens: list[int]) -> float:
    logits = continuation_logits(model, prompt, tokens).float().cpu().log_softmax(-1)
    return float(sum(step[token] for step, token in zip(logits, tokens, strict=True)))


_PARTS: Final = {
    "greedy generation": _greedy,
    "sampling": _sampled,
    "end tokens": _stopped,
    "logits processors": _processed,
    "beam search": _beams,
}


def _generate(model: Any, prompts: Tokens, **options: Any) -> Any:
    import torch

    given = {"do_sample": False, "num_beams": 1, "max_new_tokens": NEW, "min_new_tokens": NEW, **options}
    with torch.no_grad():
        return generating_module(model).generate(**inputs_for(model, prompts), pad_token_id=pad_token(model), **given)


def _rows(model: Any, prompts: Tokens, **options: Any) -> Rows:
    return _cut(model, _generate(model, prompts, **options), prompts)


def _cut(model: Any, output: torch.Tensor, prompts: Tokens) -> Rows:
    start = 1 if is_encoder_decoder(model) else max(map(len, prompts))
    rows: Rows = output[:, start:].cpu().tolist()
    return rows


def _outside(name: str, rows: Rows, model: Any) -> Iterator[Finding]:
    vocabulary = vocabulary_size(configuration_of(model))
    for number, row in enumerate(rows):
        bad = [token for token in row if token < 0 or (vocabulary is not None and token >= vocabulary)]
        if bad:
            yield Finding(f"{name}, prompt {number}", f"token ids below {vocabulary}", str(bad))


def _configured(model: Any, checkpoint: str) -> Iterator[Finding]:
    """Find special tokens in the model's generation configuration that differ from the checkpoint's."""
    from transformers import GenerationConfig

    own = getattr(core(model), "generation_config", None)
    if own is None:
        return
    try:
        stored: Any = GenerationConfig.from_pretrained(checkpoint, local_files_only=True)
    except (OSError, ValueError):
        from pytest_llmdevice.loading.pretrained import configuration

        stored = GenerationConfig.from_model_config(configuration(checkpoint))
    wanted, ends = end_tokens(_ConfigurationHolder(stored)), end_tokens(_ConfigurationHolder(own))
    # A loader may add end tokens, such as the one that ends a turn of a chat.
    if wanted - ends:
        yield Finding(
            "generation_config.eos_token_id", _listed(wanted), _listed(ends) if ends else "None", generation.STOP
        )
    vocabulary = vocabulary_size(configuration_of(model))
    pad = getattr(own, "pad_token_id", None)
    if isinstance(pad, int) and vocabulary is not None and not 0 <= pad < vocabulary:
        yield Finding("generation_config.pad_token_id", f"a token id below {vocabulary}", str(pad), generation.STOP)
    start, before = (getattr(config, "decoder_start_token_id", None) for config in (own, stored))
    if is_encoder_decoder(model) and before is not None and start != before:
        yield Finding("generation_config.decoder_start_token_id", str(before), str(start), generation.STOP)


class _ConfigurationHolder:
    """An object with a generation configuration, for functions that take a model."""

    def __init__(self, configuration: Any) -> None:
        self.generation_config = configuration


def _listed(tokens: set[int]) -> str:
    return ", ".join(map(str, sorted(tokens)))


@contextmanager
def _random_states() -> Iterator[None]:
    """Restore the states of torch's random generators, of the CPU and of all cards, on leaving."""
    import torch

    accelerator = torch.accelerator.current_accelerator()
    kind = accelerator.type if accelerator is not None else "cuda"
    module: Any = getattr(torch, kind, None)
    count = module.device_count() if module is not None and hasattr(module, "device_count") else 0
    with torch.random.fork_rng(devices=range(count), device_type=kind):
        yield


SAMPLING_CHECK: Final = Check(
    "sampling",
    lambda exam: check_sampling(exam.model, exam.prompts, exam.checkpoint),
    "seeded sampling, stop tokens, logits processors and beams work where the model is",
    "What transformers' `generate` offers beyond greedy decoding does not work on this model.",
    failure="numeric",
    origin=True,
    behaviour=True,
    after="cache",
)
