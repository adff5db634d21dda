"""Reads the cards that can be simulated from the data files of the package, and how a user names a machine of them."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib import resources
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cards import Profile, card_of
from pytest_llmdevice.matrix.memory_size import parse_memory
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.simulation.mixed import cards_named, mixed, names_cards, single

__all__ = ["ELSEWHERE", "MAX_COUNT", "PROFILES", "Profile", "parse"]

MAX_COUNT: Final = 8
"""The cards of one large server; `"auto"` maps over more are not a placement question of their own."""

FILES: Final = ("nvidia", "amd", "apple", "intel", "others")
"""The data files, without `.toml`."""

_FIRST: Final = ("cuda", "cuda-t4", "rocm", "rocm-dcu", "mps", "xpu")
"""The names that lists begin with: a card of each kind under its name alone, and two that differ in what they lack."""


def _read() -> dict[str, Profile]:
    """The cards of the data files, also under their other names."""
    found: dict[str, Profile] = {}
    for file in FILES:
        text = resources.files("pytest_llmdevice.simulation").joinpath("data", f"{file}.toml").read_text("utf-8")
        tables = tomllib.loads(text)
        for table in tables["cards"]:
            card = card_of(table, tables.get("addresses"))
            found |= {name: replace(card, name=name) for name in (card.name, *table.get("also", ()))}
    return {name: found[name] for name in (*_FIRST, *found)}


_CARDS: Final = _read()

ELSEWHERE: Final = {
    "hpu": "habana_frameworks.torch",
    "npu": "torch_npu",
}
"""Kind of card -> the library that has its runtime, which is not simulated."""

PROFILES: Final = tuple(card for card in _CARDS.values() if card.kind not in ELSEWHERE)
"""Each figure has its source in the data files; only memory, capability and what is lacking steer anything."""

UNSIMULATED: Final = tuple(card for card in _CARDS.values() if card.kind in ELSEWHERE)
"""The cards whose figures are known, and which are refused."""


def parse(text: str) -> Profile:
    """`"cuda"`, `"cuda:2"`, `"cuda-t4:2,memory=16GiB"`, `"cuda:h100+t4"` as a machine; one card unless more are said.

    Raises:
        ConfigurationError: an unknown profile, card or setting, cards of several kinds, a count outside 1 to 8, memory
            that is no size.
    """
    head, *settings = (part.strip() for part in text.split(","))
    name, colon, rest = head.partition(":")
    known = current().of(Profile)
    profile = single(name, known)
    if profile is None:
        kind = name.partition("-")[0]
        if kind in ELSEWHERE:
            raise ConfigurationError(
                f"simulation {text!r}: the runtime of {kind} cards is {ELSEWHERE[kind]}'s and not PyTorch's, and is "
                "not simulated"
            )
        raise ConfigurationError(unknown("simulation profile", name, known))
    card, _, count = rest.partition(":")
    if count and name == profile.kind and (one := single(f"{name}-{card}", known)) is not None:
        # `cuda:t4:2` is `cuda-t4:2`.
        profile, rest = one, count
    if colon and name == profile.kind and names_cards(rest, profile.kind, known):
        cards = cards_named(text, profile.kind, rest, known)
        if len(cards) > MAX_COUNT:
            raise _wrong_count(text, profile, str(len(cards)))
        if len(cards) > 1 and not profile.indexed:
            raise _too_many(text, profile)
        profile = mixed(text, profile.kind, rest, cards)
    elif colon:
        profile = replace(profile, count=_count(text, profile, rest))
    for setting in settings:
        key, _, value = setting.partition("=")
        if key != "memory":
            raise ConfigurationError(f"simulation {text!r}: {unknown('setting', key, ['memory'])}")
        profile = _with_memory(text, profile, value)
    return profile


def _with_memory(text: str, profile: Profile, value: str) -> Profile:
    sizes = [_memory(text, part) for part in value.split("+")]
    if len(sizes) not in {1, profile.count}:
        raise ConfigurationError(
            f"simulation {text!r}: {len(sizes)} sizes of memory for {profile.count} cards; give one for all, or one "
            "for each"
        )
    settings = f"{profile.settings},memory={value}"
    if len(sizes) == 1 and not profile.mixed:
        return replace(profile, memory=sizes[0], settings=settings)
    each = sizes * profile.count if len(sizes) == 1 else sizes
    cards = tuple(replace(card, memory=memory) for card, memory in zip(profile.cards, each, strict=True))
    if profile.mixed:
        return replace(profile, mixed=cards, memory=cards[0].memory, settings=settings)
    # Equal cards whose memory differs: the name is written in full, so that it can be read again.
    return replace(profile, mixed=cards, memory=cards[0].memory, name=_written(profile), settings=settings)


def _written(profile: Profile) -> str:
    short = profile.name.removeprefix(f"{profile.kind}-")
    return "+".join([short] * profile.count)


def _count(text: str, profile: Profile, count: str) -> int:
    if not (count.isascii() and count.isdecimal() and 1 <= int(count) <= MAX_COUNT):
        raise _wrong_count(text, profile, count)
    if int(count) > 1 and not profile.indexed:
        raise _too_many(text, profile)
    return int(count)


def _wrong_count(text: str, profile: Profile, count: str) -> ConfigurationError:
    return ConfigurationError(
        f"simulation {text!r}: the count of cards is {count!r}, it must be a number from 1 to {MAX_COUNT} "
        f"(such as {profile.name}:2)"
    )


def _too_many(text: str, profile: Profile) -> ConfigurationError:
    return ConfigurationError(f"simulation {text!r}: a machine has one {profile.kind} device, write {profile.name!r}")


def _memory(text: str, value: str) -> int:
    try:
        memory = parse_memory(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"simulation {text!r}: {error}") from None
    if memory < 1:
        raise ConfigurationError(f"simulation {text!r}: a card needs some memory")
    return memory
