"""Takes back hints that what is known of a cell does not bear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_llmdevice.diagnosis.finding import Finding
from pytest_llmdevice.diagnosis.hints import state


def grounded(
    findings: Sequence[Finding], *, parts: bool, cell: bool, raised: bool, changed: bool
) -> tuple[Finding, ...]:
    """`findings` with the hints that hold.

    What is inferred from logits and tokens holds only where nothing else is known to be wrong: what a wrong dtype
    makes of them looks like a wrong mask, a cache that is kept, or sampling. What keeps a model is seen, and may be the
    traceback of an exception.

    Args:
        findings: those of one check.
        parts: whether something is wrong with what the model is made of.
        cell: whether another check of the cell has found something before, whatever it is.
        raised: whether another check has met an exception before.
        changed: whether the target has changed the model while it generated, which explains all that follows.
    """
    met = {"": False, "parts": parts or changed, "cell": parts or cell or changed, "raised": raised}
    return tuple(
        replace(finding, hint=state.MODEL if changed and finding.hint.inferred != "raised" else None)
        if finding.hint is not None and met[finding.hint.inferred]
        else finding
        for finding in findings
    )
