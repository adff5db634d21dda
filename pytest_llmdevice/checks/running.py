"""Checks that run the model: its mode, a forward pass, and greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.result import Finding, Result
from pytest_llmdevice.loading.generation import inputs_for
from pytest_llmdevice.loading.logits import forward_logits
from pytest_llmdevice.loading.plan import execution_devices, with_index
from pytest_llmdevice.loading.reference import logits_dtype
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

Tokens = Sequence[Sequence[int]]

TRAINING: Final = "dropout is active: the same prompt gives other logits each time; call model.eval()"
NONFINITE: Final = "an overflow (float16 ends at 65504), a fully masked row, or weights that were never filled"
UPCAST: Final = "a part of the model is in another dtype, or autocast is on"
NONDETERMINISTIC: Final = "sampling is on, dropout is active, or uninitialised memory is read"


def check_mode(model: nn.Module) -> Result:
    """The model and all its modules are in evaluation mode."""
    modules = dict(model.named_modules())
    training = {name for name, module in modules.items() if module.training}
    # Of a whole that is in training mode, the parts need no mention.
    outermost = [name for name in training if not name or name.rpartition(".")[0] not in training]
    findings = [Finding(name or "the model", "eval mode", "training mode", TRAINING) for name in sorted(outermost)]
    return Result("mode", tuple(findings), {"modules": len(modules)})


def check_forward(model: Any, cell: Cell, prompts: Tokens, checkpoint: str) -> Result:
    """A padded batch put beside the embedding gives finite logits of the cell's dtype on the head's device.

    A class that returns float32 logits whatever its dtype is may do so: a plain load of `checkpoint` tells.
    """
    inputs = inputs_for(model, prompts)
    logits = forward_logits(model, inputs)
    embedding, head = execution_devices(model)
    findings = []
    rows = len(prompts)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", logits.shape[-1])
    wanted_shape = (*inputs["input_ids"].shape, vocabulary)
    if tuple(logits.shape) != wanted_shape:
        findings.append(Finding("logits", f"shape {wanted_shape}", str(tuple(logits.shape))))
        return Result("forward", tuple(findings))
    # The root hook of a dispatched model returns the output to where the input came from.
    if with_index(logits.device) not in {embedding, head}:
        findings.append(Finding("logits", f"device {head}", with_index(logits.device)))
    dtype = str(logits.dtype).removeprefix("torch.")
    if dtype != cell.dtype and dtype != logits_dtype(checkpoint, cell.dtype):
        findings.append(Finding("logits", cell.dtype, dtype, UPCAST))
    # Padding may hold anything; only what belongs to a prompt is looked at.
    real = logits[inputs["attention_mask"].bool().to(logits.device)]
    bad = int((~real.isfinite()).sum())
    if bad:
        findings.append(Finding("logits", "all finite", f"{bad} of {real.numel()} are inf or nan", NONFINITE))
    return Result("forward", tuple(findings), {"prompts": rows, "logits": real.numel()})


def check_generation(first: object, second: object, prompts: Tokens, max_new_tokens: int, model: Any) -> Result:
    """Two greedy generations of one batch: as many new tokens as asked, real token ids, the same twice.

    `first` and `second` are what the target's `generate` returned. Fewer tokens are right only where the
    last one ends the sequence.
    """
    findings = [*_malformed(first, prompts), *_malformed(second, prompts)]
    if findings:
        return Result("generation", tuple(dict.fromkeys(findings)))
    one, two = token_rows(first) or [], token_rows(second) or []
    ends = _end_tokens(model)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    for number, (row, again) in enumerate(zip(one, two, strict=True)):
        where = f"prompt {number}"
        if len(row) != max_new_tokens and not (0 < len(row) < max_new_tokens and row[-1] in ends):
            findings.append(
                Finding(where, f"{max_new_tokens} new tokens (or an end token)", f"{len(row)} tokens: {row}")
            )
        outside = [token for token in row if token < 0 or (vocabulary is not None and token >= vocabulary)]
        if outside:
            findings.append(Finding(where, f"token ids below {vocabulary}", str(outside)))
        if row != again:
            findings.append(Finding(where, f"the same tokens twice: {row}", str(again), NONDETERMINISTIC))
    return Result("generation", tuple(findings), {"prompts": len(one), "tokens": sum(map(len, one))})


def _malformed(output: object, prompts: Tokens) -> list[Finding]:
    contract = f"{len(prompts)} lists of new token ids, one for each prompt"
    where = "what generate returned"
    rows = token_rows(output)
    if rows is None:
        return [Finding(where, contract, f"{type(output).__name__}: {str(output)[:60]!r}")]
    if len(rows) != len(prompts):
        return [Finding(where, contract, f"{len(rows)} of them")]
    return []


def token_rows(output: Any) -> list[list[int]] | None:
    """`output` as lists of token ids, None when it is something else. Tensors count: the ids are what matters."""
    try:
        rows = [row.tolist() if hasattr(row, "tolist") else list(row) for row in output]
        if any(isinstance(token, (str, bytes)) or token != int(token) for row in rows for token in row):
            return None
    except (TypeError, ValueError, OverflowError):
        return None
    return [[int(token) for token in row] for row in rows]


def _end_tokens(model: Any) -> set[int]:
    for source in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        token = getattr(source, "eos_token_id", None)
        if token is not None:
            return set(token) if isinstance(token, (list, tuple)) else {token}
    return set()
