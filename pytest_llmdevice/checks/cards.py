"""Checks that a CPU cell stays on the CPU when the machine has cards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.dtypes import check_dtypes
from pytest_llmdevice.checks.examination import FEW_TOKENS, Examination
from pytest_llmdevice.checks.generation import check_generation, token_rows
from pytest_llmdevice.checks.inputs import check_inputs
from pytest_llmdevice.checks.placement import check_placement
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.placement import CARD_PREFERRED
from pytest_llmdevice.inference.generation_run import GenerationRun, generate_traced
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.matrix.ranks import is_sharded
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation import Profile, Simulation

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target
    from pytest_llmdevice.matrix.cell import Cell

Tokens = Sequence[Sequence[int]]


def check_cards(
    target: Target,
    checkpoint: str,
    cell: Cell,
    profile: Profile,
    prompts: Tokens,
    max_new_tokens: int,
    alone: GenerationRun,
    known: Collection[Finding] = (),
    *,
    repeatable: bool = True,
) -> Result:
    """Load and generate once more on a simulated machine with cards: nothing of a cpu cell may go to one of them.

    Args:
        target: the code under test.
        checkpoint: the local folder of the model.
        cell: a cell on the cpu.
        profile: the cards to simulate.
        prompts: lists of token ids.
        max_new_tokens: how many are asked for; fewer than for `alone` are enough.
        alone: what the target generated where no card was visible.
        known: what is wrong there too, and no matter of cards.
        repeatable: whether the tokens mean anything: not those of a model with weights that have no numbers.
    """
    with Simulation(profile):
        loaded = Loaded.load(target, Path(checkpoint), cell)
        if loaded.model is None:
            why = loaded.cause or loaded.skipped
            finding = Finding(f"load, with {profile} visible", "a model, as without cards", why, CARD_PREFERRED)
            return Result("cards", (finding,), details=loaded.details)
        model, wanted = loaded.model, loaded.reference or checkpoint
        expectations = expectations_of(model, wanted, cell)
        # Before it runs: an exception in a forward pass leaves what a hook brought where it is.
        parts = [check_placement(model, expectations, cell), check_dtypes(model, expectations, cell, wanted)]
        generated = generate_traced(target, model, prompts, max_new_tokens)
        if alone.error is None:
            # In other words where the number of tokens is another.
            wrong = {finding.where for finding in known}
            result = check_generation(generated, prompts, max_new_tokens, model)
            parts.append(
                replace(result, findings=tuple(finding for finding in result.findings if finding.where not in wrong))
            )
            parts.append(check_inputs(generated, prompts, model, cell))
        found = [finding for part in parts for finding in part.findings if finding not in known]
        if any(not finding.kind for finding in found):
            # What is raised by a model that went elsewhere, or by what was handed to it there, follows from that.
            found = [finding for finding in found if not finding.kind]
        findings = [_with_cards(finding, profile) for finding in found]
        # A last token may be forced.
        before, rows = (_started(run.first, max_new_tokens - 1) for run in (alone, generated))
        loaded.release()
    differs = repeatable and alone.error is None and generated.error is None and rows != before
    # What differs from load to load has to do with no card.
    if differs and before == _started(
        _once_more(target, checkpoint, cell, prompts, max_new_tokens), max_new_tokens - 1
    ):
        findings.append(Finding(f"tokens, with {profile} visible", str(before), str(rows), CARD_PREFERRED))
    return Result("cards", tuple(findings), {"tensors": len(expectations.tensors), "visible": str(profile)})


def _once_more(target: Target, checkpoint: str, cell: Cell, prompts: Tokens, max_new_tokens: int) -> object:
    """What `target` generates with another model that it loads, where no card is visible; None where it does not."""
    loaded = Loaded.load(target, Path(checkpoint), cell)
    try:
        return None if loaded.model is None else generate_traced(target, loaded.model, prompts, max_new_tokens).first
    finally:
        loaded.release()


def _started(output: object, count: int) -> list[list[int]] | None:
    """The first `count` tokens of each row of what a target generated."""
    rows = token_rows(output) if output is not None else []
    return None if rows is None else [row[:count] for row in rows]


def _with_cards(finding: Finding, profile: Profile) -> Finding:
    return replace(finding, where=f"{finding.where}, with {profile} visible", hint=finding.hint or CARD_PREFERRED)


def _cards(exam: Examination) -> Result:
    if exam.beside is None:
        return Result("cards")
    if is_sharded(exam.cell):
        return Result("cards", inapplicable="transformers' plans take the cards of a machine, whatever is asked for")
    looked_at = ("placement", "dtypes", "inputs", "generation")
    known = [finding for name in looked_at for finding in exam.check(name).findings]
    return check_cards(
        exam.target,
        exam.loaded_from,
        exam.cell,
        exam.beside,
        exam.prompts,
        FEW_TOKENS,
        exam.generated,
        known,
        repeatable=not exam.check("meta").findings,
    )


CARDS_CHECK: Final = Check(
    "cards",
    _cards,
    "with `--llm-simulate`: a cpu cell, once more where cards are visible, does not touch them",
    "The target prefers a card that it was not asked for.",
    needs=("generation", "second load", "simulated cards"),
    failure="placement",
    after="reload",
)
