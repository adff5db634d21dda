"""Checks a target's `generate` where rows of a batch end early: they end there, and the others go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_llmdevice.checks.generation import token_rows, until_end
from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.generation import END_DROPPED, ENDED_TOGETHER, ENDS_MISSED, GOES_ON
from pytest_llmdevice.errors import target_forgiven
from pytest_llmdevice.inference.generation import end_tokens, generate_with
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.model.wrappers import configuration_of, core

if TYPE_CHECKING:
    from pytest_llmdevice.diagnosis import Hint

Tokens = Sequence[Sequence[int]]
Rows = list[list[int]]
State = Literal["ended", "dropped", "goes on", "unknown"]

AFTER: Final = 4
"""The number of new tokens from the last one that ends a row."""

NOT_READ: Final = "end tokens of the configuration"
"""The evidence of a target that ends no row at what the model's configuration says when it generates."""


class Early(NamedTuple):
    """A token that one row has early, and the others later or never: its row, and its step in that row."""

    token: int
    row: int
    step: int


def ended_findings(
    target: Any, model: Any, prompts: Tokens, first: object, stops: Collection[int] | None = None
) -> Inspection:
    """Make one or two rows of a batch end early, and check that they end there and the others continue.

    The end tokens are some that occur in one row early, and in the others later or never. They are set as the model
    has its own, a number or a list, and as a list, in which they are the first and one in the middle: a target that
    heeds only one of a list is found, and one that knows no list where the model has one. Targets that do not read end
    tokens from the model's configuration when they generate, or that forbid them, are not checked, because no row ends;
    nor is the built-in generation, which forbids them.

    Args:
        target: the code under test.
        model: the model that it loaded.
        prompts: token ids of each prompt.
        first: what the target generated for the batch before.
        stops: the tokens that end a row; by default the model's end tokens.
    """
    before = token_rows(first) if first is not None else None
    chosen = _early(before) if before and len(before) == len(prompts) > 1 else []
    if before is None or not chosen or getattr(type(target), "generate", None) is BuiltinTarget.generate:
        return [], {}
    ends = end_tokens(model) if stops is None else stops
    asked = min(*(len(before[early.row]) for early in chosen), max(early.step for early in chosen) + AFTER)
    trial = _Trial(target, model, prompts, before, frozenset(ends), asked)
    number, several = chosen[0].token, _listed([early.token for early in chosen], before)
    listed = _was_listed(model)
    found, ended = trial.batch(several, chosen) if listed else trial.batch(number, chosen[:1])
    if found or ended:
        evidence: dict[str, int | float | str] = {"rows beside one that ends": len(before) - 1}
        if found or listed:
            return found, evidence
        found, ended = trial.batch(several, chosen, less=1)
        return found, evidence if ended else {**evidence, NOT_READ: "as a number, not as a list"}
    if trial.ends_alone(several if listed else number, chosen[0]):
        early = chosen[0]
        where = f"prompt {early.row} in a batch, behind its end token, new token {early.step}"
        return [Finding(where, "nothing, or padding", "it goes on, as it does not by itself", GOES_ON, "answer")], {}
    if listed and trial.batch(number, chosen[:1], less=1)[1]:
        wanted = "the row ends there, as where it is the only one"
        return [Finding(f"end token {number} of a list", wanted, "the row goes on", ENDS_MISSED, "answer")], {}
    return [], {NOT_READ: "not read by generate"}


class _Trial(NamedTuple):
    """What a target generates when tokens are made end tokens.

    Attributes:
        target: the code under test.
        model: the model that it loaded.
        prompts: token ids of each prompt.
        before: what it generated for them without.
        ends: the tokens that ended a row then.
        asked: how many new tokens to ask for.
    """

    target: Any
    model: Any
    prompts: Tokens
    before: Rows
    ends: frozenset[int]
    asked: int

    def batch(self, tokens: int | list[int], chosen: Sequence[Early], *, less: int = 0) -> tuple[list[Finding], bool]:
        """What is wrong with the rows when `tokens` are the end tokens, and whether one of `chosen` ended.

        `less` new tokens less are asked for, so that answers which the target has kept are not taken for new ones.
        """
        rows = None
        with _ending(self.model, tokens), target_forgiven():
            rows = token_rows(generate_with(self.target, self.model, self.prompts, self.asked - less))
        if rows is None or len(rows) != len(self.before):
            return [], False
        known = {tokens} if isinstance(tokens, int) else set(tokens)
        states = {early: self.state(rows[early.row], early, known) for early in chosen}
        ended = any(state in {"ended", "dropped"} for state in states.values())
        wrong = self._beside(rows, chosen, known) if ended or not self._all_go_on(rows) else None
        if wrong is not None:
            return [wrong], True
        for early, state in states.items():
            where = f"prompt {early.row} in a batch, at its end token, new token {early.step}"
            if ended and state == "goes on":
                other = next(each for each, found in states.items() if found in {"ended", "dropped"})
                wanted = f"the row ends, as that of prompt {other.row} does at another one"
                return [Finding(where, wanted, str(rows[early.row]), ENDS_MISSED, "answer")], True
            if state == "dropped":
                wanted = f"the row with its end token {early.token}"
                return [Finding(where, wanted, str(rows[early.row]), END_DROPPED, "answer")], True
        return [], ended

    def state(self, row: list[int], early: Early, known: Collection[int]) -> State:
        """What became of the row that should end."""
        whole, stop = self.before[early.row], early.step
        if row[:stop] == whole[:stop] and len(row) == stop:
            return "dropped"
        if row[: stop + 1] != whole[: stop + 1]:
            return "unknown"
        behind = row[stop + 1 :]
        # With fewer new tokens than before, the last one may be forced.
        plain = whole[stop + 1 : self.asked - 1]
        if len(set(behind) - self.ends - set(known)) > 1:
            return "goes on"
        # A model that repeats itself cannot be told from padding.
        return "unknown" if plain and behind[: len(plain)] == plain else "ended"

    def ends_alone(self, tokens: int | list[int], early: Early) -> bool:
        """Whether the target ends the row of `early` where its prompt is the only one."""
        rows = None
        with _ending(self.model, tokens), target_forgiven():
            rows = token_rows(generate_with(self.target, self.model, [self.prompts[early.row]], self.asked))
        if not rows or len(rows) != 1:
            return False
        return self.state(rows[0], early, {tokens} if isinstance(tokens, int) else set(tokens)) == "ended"

    def _all_go_on(self, rows: Rows) -> bool:
        """Whether each row is as before: nothing has ended."""
        return all(
            row[: self.asked - 1] == whole[: self.asked - 1] for row, whole in zip(rows, self.before, strict=True)
        )

    def _beside(self, rows: Rows, chosen: Sequence[Early], known: Collection[int]) -> Finding | None:
        """The first row that is wrong or shorter because another one ends."""
        first = min(chosen, key=lambda early: early.step)
        for number, (row, whole) in enumerate(zip(rows, self.before, strict=True)):
            stop = next((at for at, token in enumerate(whole) if token in known), len(whole))
            stop = min(stop, len(until_end(whole, self.ends)))
            if self.asked < len(whole):
                # With fewer new tokens than before, the last one may be forced.
                stop = min(stop, self.asked - 1)
            if number == first.row or row[:stop] == whole[:stop]:
                continue
            # The model's own end tokens end no sequence now, and need not be forbidden any more.
            parted = next((pair for pair in zip(row, whole, strict=False) if pair[0] != pair[1]), None)
            if parted is not None and parted[0] in self.ends:
                continue
            same = row == whole[: len(row)]
            where = f"prompt {number} in a batch in which prompt {first.row} ends at its token {first.step}"
            actual = f"{row}: it ended as well" if same else str(row)
            hint: Hint | None = ENDED_TOGETHER if same else None
            return Finding(where, f"{whole[:stop]}, as where none ends", actual, hint, "answer")
        return None


def _listed(tokens: Sequence[int], rows: Rows) -> list[int]:
    """End tokens with `tokens` at the first and a middle place, and between and behind them what no row has."""
    said = {token for row in rows for token in row}
    unsaid = [token for token in range(len(said) + len(tokens)) if token not in said]
    return [each for pair in zip(tokens, unsaid, strict=False) for each in pair]


def _early(rows: Rows) -> list[Early]:
    """The tokens that occur in their row earliest before the others, of one or two rows; empty without one.

    The second is of another row and of a step that a loop in blocks of two would see at another place of its block.
    """
    found: list[tuple[int, bool, Early]] = []
    for number, row in enumerate(rows):
        # Without the first token: a row that ends before the target's loop starts is another case.
        for step, token in enumerate(row[:-1]):
            if step == 0 or token in row[:step]:
                continue
            others = [other.index(token) if token in other else len(other) for other in rows if other is not row]
            lead = min(others) - step
            if lead > 1:
                found.append((lead, len(set(row[step + 1 : step + AFTER])) > 1, Early(token, number, step)))
    if not found:
        return []
    best = max(found, key=lambda each: (each[0], each[1]))[2]
    seconds = [
        (varied, (early.step - best.step) % 2, early)
        for _, varied, early in found
        if early.row != best.row
        and best.token not in rows[early.row][: early.step]
        and early.step <= best.step + 2
        # The first one ends before the second could.
        and early.token not in rows[best.row][: best.step]
        and early.step + 2 < len(rows[early.row])
    ]
    return [best, max(seconds)[2]] if seconds and len(rows) > 2 else [best]


def _was_listed(model: Any) -> bool:
    return any(isinstance(value, (list, tuple)) and len(value) > 1 for _, value in _owners(model))


def _owners(model: Any) -> list[tuple[Any, Any]]:
    """The configurations that generation reads end tokens from, and what they say."""
    owners = (getattr(core(model), "generation_config", None), configuration_of(model))
    return [
        (owner, vars(owner)["eos_token_id"]) for owner in owners if owner is not None and "eos_token_id" in vars(owner)
    ]


@contextmanager
def _ending(model: Any, tokens: int | list[int]) -> Iterator[None]:
    """Make `tokens` the end tokens in the configurations that generation reads."""
    before = _owners(model)
    try:
        for owner, _ in before:
            owner.eos_token_id = tokens if isinstance(tokens, int) else list(tokens)
        yield
    finally:
        for owner, value in before:
            owner.eos_token_id = value
