"""Checks beam search, whose cache rows must follow the beams, and generation with a static cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pytest_llmdevice.checks.noise import Inspection, Limits, gap, gap_finding
from pytest_llmdevice.diagnosis.hints.sequences import BEAMS, CACHED
from pytest_llmdevice.inference.generation import inputs_for, pad_token
from pytest_llmdevice.inference.logits import batch_continuation_logits, continuation_logits
from pytest_llmdevice.model.kv_cache import cache_of
from pytest_llmdevice.model.wrappers import generating_module

_BEAMS: Final = 4
_STEPS: Final = 6


def beam_findings(model: Any, prompt: Sequence[int], limits: Limits) -> Inspection:
    """Compare the logits of a short beam search with one forward pass over each of its sequences.

    The logits of each step are those of the beam that a sequence came from. Which sequences win is not compared,
    because two beams may be equally likely.

    Args:
        model: the model under test.
        prompt: token ids that the model does not continue with clear choices, or one beam would lead from the start
            and nothing would be reordered.
        limits: the largest errors that are noise.
    """
    import torch

    output = _generate(model, prompt, num_beams=_BEAMS, num_return_sequences=_BEAMS, output_scores=True)
    findings = []
    rows = output.sequences[:, -_STEPS:].tolist()
    clean = batch_continuation_logits(model, prompt, rows).float().cpu()
    for number, (alone, beams) in enumerate(zip(clean, output.beam_indices.tolist(), strict=True)):
        logits = torch.stack([output.logits[step][beam] for step, beam in enumerate(beams[:_STEPS])]).float().cpu()
        difference = gap(logits, alone, limits)
        if not difference.within(limits):
            where = f"logits of beam {number} of {_BEAMS}"
            findings.append(gap_finding(where, difference, limits, BEAMS, of="those of its own tokens without a cache"))
    return findings, {"beam steps": _STEPS * len(rows)}


def static_findings(model: Any, prompt: Sequence[int], limits: Limits) -> tuple[Inspection, Any]:
    """Compare the logits of a short generation with a static cache with one forward pass; also returns the cache."""
    import torch

    output = _generate(model, prompt, num_beams=1, cache_implementation="static", disable_compile=True)
    row = output.sequences[0, -_STEPS:].tolist()
    logits = torch.cat(list(output.logits)).float().cpu()
    difference = gap(logits, continuation_logits(model, prompt, row).float().cpu(), limits)
    findings = []
    if not difference.within(limits):
        where = "logits of new tokens with a static cache"
        findings.append(gap_finding(where, difference, limits, CACHED, of="those without a cache"))
    return (findings, {"static steps": _STEPS}), cache_of(output)


def _generate(model: Any, prompt: Sequence[int], **options: Any) -> Any:
    import torch

    with torch.no_grad():
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
