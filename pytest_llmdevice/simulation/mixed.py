"""Reads the names of cards in `cuda:h100+t4`, and says which of them cannot be in one machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cards import Profile
from pytest_llmdevice.matrix.suggest import nearest

_PART: Final = re.compile(r"(?:([1-9])x)?([A-Za-z][\w-]*(?:-[1-9]g\.[0-9]+gb)?)")
"""`"h100"`, `"2xh100"`, `"h100-1g.10gb"`."""

_BUILDS: Final = {"13.0": ((7, 5), (99, 0)), "12.6": ((5, 0), (9, 0))}
"""CUDA toolkit -> the lowest and highest compute capability that the released PyTorch for it has kernels for
(github.com/pytorch/test-infra/pull/7046), the newest first."""


def single(name: str, known: Mapping[str, Profile]) -> Profile | None:
    """The profile `name`, which may be a MIG instance of one (`"cuda-h100-1g.10gb"`); None where there is none."""
    if name in known:
        return known[name]
    whole, _, part = name.rpartition("-")
    return known[whole].sliced(part) if whole in known else None


def names_cards(text: str, kind: str, known: Mapping[str, Profile]) -> bool:
    """Whether `text`, behind the colon, names cards, be they right or wrong, rather than a count."""
    parts = [_PART.fullmatch(part.strip()) for part in text.split("+")]
    if len(parts) > 1:
        return any(parts)
    part = parts[0]
    return part is not None and (_card(part[2], kind, known) or nearest(part[2], _short(known))) is not None


def cards_named(text: str, kind: str, names: str, known: Mapping[str, Profile]) -> tuple[Profile, ...]:
    """The cards that `names` lists, each as a machine with that card alone.

    Raises:
        ConfigurationError: one is unknown, or of another kind than `kind`.
    """
    cards: list[Profile] = []
    for part in names.split("+"):
        match = _PART.fullmatch(part.strip())
        times, name = (match[1] or "1", match[2]) if match else ("1", part.strip())
        card = _card(name, kind, known)
        if card is None:
            raise ConfigurationError(f"simulation {text!r}: {_unknown(name, kind, known)}")
        cards += [replace(card, count=1)] * int(times)
    return tuple(cards)


def mixed(text: str, kind: str, names: str, cards: tuple[Profile, ...]) -> Profile:
    """The machine of `cards`, in one process with one build of PyTorch.

    Raises:
        ConfigurationError: no process has them together.
    """
    if len(cards) > 1 and len({bool(card.slice) for card in cards}) > 1:
        part = next(card for card in cards if card.slice)
        raise ConfigurationError(
            f"simulation {text!r}: a process that sees a MIG instance ({part.name}) sees no other card"
        )
    toolkit = _toolkit(text, cards)
    cards = tuple(replace(card, toolkit=toolkit) for card in cards)
    if len(set(cards)) == 1:
        return replace(cards[0], count=len(cards))
    return replace(
        cards[0], name="+".join(part.strip() for part in names.split("+")), kind=kind, count=len(cards), mixed=cards
    )


def _toolkit(text: str, cards: tuple[Profile, ...]) -> str:
    wanted = dict.fromkeys(card.toolkit for card in cards)
    if len(wanted) == 1:
        return cards[0].toolkit
    if cards[0].kind == "cuda":
        for toolkit, (lowest, highest) in _BUILDS.items():
            if all(lowest <= card.capability <= highest for card in cards):
                return toolkit
    ordered = sorted(cards, key=lambda card: card.capability)
    first, last = ordered[0], ordered[-1]
    if cards[0].kind != "cuda":
        first, last = (next(card for card in cards if card.toolkit == version) for version in list(wanted)[:2])
    raise ConfigurationError(
        f"simulation {text!r}: no build of PyTorch is for both {first.card} ({first.toolkit}) and {last.card} "
        f"({last.toolkit})"
    )


def _card(name: str, kind: str, known: Mapping[str, Profile]) -> Profile | None:
    found = single(f"{kind}-{name}", known) or single(name, known)
    return found if found is not None and found.kind == kind else None


def _short(known: Mapping[str, Profile]) -> dict[str, Profile]:
    """Name of a card without its kind -> the card; the kinds' own names are no cards."""
    return {name.removeprefix(f"{card.kind}-"): card for name, card in known.items() if name != card.kind}


def _unknown(name: str, kind: str, known: Mapping[str, Profile]) -> str:
    short = _short(known)
    if name in short:
        other = short[name].kind
        return f"{name} is a card of {other}, and a machine has cards of one kind (for one of its own, {other}:{name})"
    whole, _, part = name.rpartition("-")
    base = _card(whole, kind, known) if whole else None
    if base is not None and re.fullmatch(r"\dg\.\d+gb", part):
        instances = ", ".join(each.name for each in base.slices) or "none"
        return f"{base.card} has no MIG instance {part!r} (valid: {instances})"
    guess = nearest(name, short) if name[:1].isalpha() else None
    valid = ", ".join(each for each, card in short.items() if card.kind == kind)
    if guess is None:
        return f"unknown {kind} card {name!r} (valid: {valid})"
    other = short[guess].kind
    if other != kind:
        return (
            f"unknown {kind} card {name!r}; did you mean {guess!r}? That is a card of {other}, and a machine has cards "
            f"of one kind (valid: {valid})"
        )
    return f"unknown {kind} card {name!r}; did you mean {guess!r}? (valid: {valid})"
