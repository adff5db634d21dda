"""Generation with other caches than a plain greedy one's: rows that follow beams, and a static one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pytest_llmdevice.checks.noise import Inspection, Limits, finding, gap
from pytest_llmdevice.diagnosis.hints.sequences import BEAMS, CACHED
from pytest_llmdevice.inference.generation import inputs_for, pad_token
from pytest_llmdevice.inference.logits import batch_continuation_logits, continuation_logits
from pytest_llmdevice.model.kv_cache import cache_of
from pytest_llmdevice.model.wrappers import generating_module

_BEAMS: Final = 4
_STEPS: Final = 6


def beam_findings(model: Any, prompt: Sequence[int], limits: Limits) -> Inspection:
    """What a short beam search says of its own sequences, against one forward pass over each.

    A `prompt` that the model continues with clear choices would leave one beam ahead, and nothing to reorder.

    The logits of each step belong to the beam that each sequence came from. Which sequences win is not compared:
    two beams may be as good as each other.
    """
    import torch

    output = _generate(model, prompt, num_beams=_BEAMS, num_return_sequences=_BEAMS, output_scores=True)
    findings = []
    rows = output.sequences[:, -_STEPS:].tolist()
    clean = batch_continuation_logits(model, prompt, rows).float().cpu()
    for number, (alone, beams) in enumerate(zip(clean, output.beam_indices.tolist(), strict=True)):
        said = torch.stack([output.logits[step][beam] for step, beam in enumerate(beams[:_STEPS])]).float().cpu()
        found = gap(said, alone, limits)
        if not found.within(limits):
            where = f"logits of beam {number} of {_BEAMS}"
            findings.append(finding(where, found, limits, BEAMS, of="those of its own tokens without a cache"))
    return findings, {"beam steps": _STEPS * len(rows)}


def static_findings(model: Any, prompt: Sequence[int], limits: Limits) -> tuple[Inspection, Any]:
    """What a short generation into a static cache says, against one forward pass over it; and that cache."""
    import torch

    output = _generate(model, prompt, num_beams=1, cache_implementation="static", disable_compile=True)
    row = output.sequences[0, -_STEPS:].tolist()
    said = torch.cat(list(output.logits)).float().cpu()
    found = gap(said, continuation_logits(model, prompt, row).float().cpu(), limits)
    findings = []
    if not found.within(limits):
        where = "logits of new tokens with a static cache"
        findings.append(finding(where, found, limits, CACHED, of="those without a cache"))
    return (findings, {"static steps": _STEPS}), cache_of(output)


def _generate(model: Any, prompt: Sequence[int], **options: Any) -> Any:
    import torch

    with torch.inference_mode():
        return generating_module(model).generate(
            **inputs_for(model, [prompt]),
            do_sample=False,
            max_new_tokens=_STEPS,
            min_new_tokens=_STEPS,
            pad_token_id=pad_token(model),
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
