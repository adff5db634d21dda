"""Says in words what changed since a baseline was written: what has one cause is one change, its root first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_llmdevice.report.problems import Place, Problem, places_of
from pytest_llmdevice.results.cell_view import base_id
from pytest_llmdevice.results.run_header import BUILTIN
from pytest_llmdevice.results.transitions import NAMES, Comparison, Transition, count_text
from pytest_llmdevice.results.vocabulary import outcome_text
from pytest_llmdevice.text import plural


@dataclass
class Change:
    """Transitions of one name that have one cause.

    Attributes:
        first: the one that is told: of a check that found the cause, if it is among them.
        alike: the same in other cells, or found by other checks.
        follows: what follows from it.
    """

    first: Transition
    alike: list[Transition] = field(default_factory=list)
    follows: list[Transition] = field(default_factory=list)

    @property
    def elsewhere(self) -> list[str]:
        """The other cells that it is in, by id."""
        cells = dict.fromkeys(transition.cell for transition in (*self.alike, *self.follows))
        return [cell for cell in cells if cell != self.first.cell]

    @property
    def also_found_by(self) -> list[str]:
        """The other checks that have found the cause itself."""
        checks = dict.fromkeys(transition.check for transition in self.alike)
        return [check for check in checks if check != self.first.check]

    @property
    def tail(self) -> str:
        """`"; found by save too; also in 3 cells, of gpt2, llama; and 7 checks that follow from it"`, what there is."""
        others = self.also_found_by
        too = f"; found by {', '.join(others)} too" if others else ""
        elsewhere = self.elsewhere
        models = sorted({model_in(cell) for cell in elsewhere})
        also = f"; also in {plural(len(elsewhere), 'cell')}, of {', '.join(models)}" if elsewhere else ""
        checks = list(dict.fromkeys(transition.check for transition in self.follows))
        verb = "follows" if len(checks) == 1 else "follow"
        rest = f"; and {plural(len(checks), 'check')} that {verb} from it" if checks else ""
        return f"{too}{also}{rest}"


def changes_of(transitions: Sequence[Transition], problems: Sequence[Problem]) -> list[Change]:
    """`transitions` with those of one name and one problem as one change, what concerns most cells first.

    A transition that is part of no problem, such as one of a check that was skipped, is a change of its own; those come
    last among their name, in their order.
    """
    places = places_of(problems)
    changes: dict[tuple[int, int, int], Change] = {}
    for place, transition in enumerate(transitions):
        key = transition.target, base_id(transition.cell), transition.check
        number, root = places.get(key, (len(problems), False)) if transition.failing else (len(problems), False)
        name = NAMES.index(transition.name)
        where = (name, number, place if number == len(problems) else 0)
        if where not in changes:
            changes[where] = Change(transition)
        elif root and not _is_root(changes[where].first, places):
            changes[where].follows.append(changes[where].first)
            changes[where].first = transition
        else:
            (changes[where].alike if root else changes[where].follows).append(transition)
    return [changes[where] for where in sorted(changes)]


def _is_root(transition: Transition, places: dict[Place, tuple[int, bool]]) -> bool:
    return places[transition.target, base_id(transition.cell), transition.check][1]


def model_in(cell: str) -> str:
    """The model in the id of a cell, as short as it is there."""
    return cell.partition(".")[0]


def differences_text(comparison: Comparison) -> str:
    """`"3 regressions, 1 vanished, 9,000 unchanged"`."""
    counts = comparison.counts
    differences = [count_text(name, counts[name]) for name in NAMES if counts[name]]
    return ", ".join([*differences, f"{comparison.unchanged:,} unchanged"])


def comparison_line(comparison: Comparison) -> str:
    """`"Since baseline.json: 3 regressions, 1 vanished, 9,000 unchanged"`."""
    return f"Since {comparison.baseline}: {differences_text(comparison)}"


def transition_text(transition: Transition) -> str:
    """`"llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ..."`."""
    check = f" {transition.check}" if transition.check else ""
    detail = f": {transition.detail}" if transition.detail else ""
    before, after = outcome_text(transition.before), outcome_text(transition.after)
    target = f" of {transition.target}" if transition.target != BUILTIN else ""
    return f"{transition.cell}{target}{check}: {before} -> {after}{detail}"


def change_text(change: Change) -> str:
    """The transition that is told, and what else is of its cause."""
    return f"{transition_text(change.first)}{change.tail}"


def named_change_text(change: Change) -> str:
    """`"regression: llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ...; also in ..."`."""
    return f"{change.first.name}: {change_text(change)}"


def worst_changes(comparison: Comparison, problems: Sequence[Problem], most: int) -> list[str]:
    """The worst `most` changes, a line each, and how many there are besides, with the models that they are of."""
    changes = changes_of(comparison.transitions, problems)
    lines = [named_change_text(change) for change in changes[:most]]
    return [*lines, left_text(changes[most:])] if changes[most:] else lines


def left_text(changes: Sequence[Change]) -> str:
    """`"and 12 more changes, of gpt2, llama"`."""
    cells = [cell for change in changes for cell in (change.first.cell, *change.elsewhere)]
    return f"and {plural(len(changes), 'more change')}, of {', '.join(sorted(set(map(model_in, cells))))}"
