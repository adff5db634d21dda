"""The data files of cards: every figure has a source, and what is lacking agrees with what PyTorch asks."""

from __future__ import annotations

import re

import pytest

from pytest_llmdevice.matrix.cards import LACKS, Profile
from pytest_llmdevice.simulation.profiles import ELSEWHERE, PROFILES, UNSIMULATED, parse

EVERY = (*PROFILES, *UNSIMULATED)
UNVERIFIED = {("rocm-dcu", figure) for figure in ("capability", "processors", "warp")} | {
    ("rocm-k100ai", figure) for figure in ("capability", "processors", "warp")
}


def figures(card: Profile) -> set[str]:
    """The figures of a card that a driver would have had to say."""
    found = {"card": card.card, "memory": card.memory, "architecture": card.architecture, "lacks": card.lacks}
    found |= {"slices": card.slices, "capability": any(card.capability), "processors": card.processors > 1}
    found["warp"] = card.warp != 32
    return {name for name, value in found.items() if value}


@pytest.mark.parametrize("card", EVERY, ids=lambda card: card.name)
def test_every_figure_has_a_source(card: Profile) -> None:
    sources = dict(card.sources)

    assert figures(card) <= sources.keys()
    unverified = {(card.name, figure) for figure, said in sources.items() if said == "unverified"}
    assert unverified - {(card.name, "toolkit")} <= UNVERIFIED
    for said in sources.values():
        assert said == "unverified" or re.search(r"https://|printed|aten/src|torch\.cuda", said), said


def test_at_least_24_cards_of_every_backend() -> None:
    cards = {card.card for card in EVERY}

    assert len(cards) >= 24
    assert {card.kind for card in EVERY} == {"cuda", "rocm", "xpu", "mps", "hpu", "npu"}
    for wanted in ("T4", "V100", "A10", "A100", "L4", "L40S", "RTX 3060", "RTX 3090", "RTX 4060 Ti", "RTX 4090"):
        assert any(wanted in card for card in cards), wanted
    for wanted in ("RTX 5090", "H100", "H200", "B200", "MI210", "MI250", "MI300X", "MI350X", "K100", "Gaudi 2"):
        assert any(wanted in card for card in cards), wanted
    for wanted in ("Gaudi 3", "910B", "M1", "M2", "M3", "M4", "A770", "B580", "Max 1550"):
        assert any(wanted in card for card in cards), wanted


@pytest.mark.parametrize("card", [card for card in PROFILES if card.kind == "cuda"], ids=lambda card: card.name)
def test_what_an_nvidia_card_lacks_is_what_its_capability_says(card: Profile) -> None:
    assert ("bfloat16" in card.lacks) is (card.capability < (8, 0))
    assert ("float8" in card.lacks) is (card.capability < (8, 9))


@pytest.mark.parametrize("card", EVERY, ids=lambda card: card.name)
def test_what_is_lacking_has_words(card: Profile) -> None:
    assert set(card.lacks) <= LACKS.keys()
    assert ("float64" in card.refused) is ("float64" in card.lacks)


@pytest.mark.parametrize("card", PROFILES, ids=lambda card: card.name)
def test_an_instance_is_smaller_than_its_card(card: Profile) -> None:
    for part in card.slices:
        instance = card.sliced(part.name)
        assert instance is not None
        assert instance.memory < card.memory
        assert instance.processors <= card.processors
        assert instance.capability == card.capability
        assert instance.card == f"{card.card} MIG {part.name}"
        # 1g.10gb: less than 10 GB, and more than three quarters of it.
        wanted = int(part.name.partition(".")[2].removesuffix("gb")) * 2**30
        assert wanted * 3 // 4 < part.memory <= wanted


@pytest.mark.parametrize("card", UNSIMULATED, ids=lambda card: card.name)
def test_a_card_whose_runtime_is_not_pytorchs_is_refused_by_name(card: Profile) -> None:
    for text in (card.name, f"{card.kind}:{card.name.partition('-')[2]}", card.kind):
        with pytest.raises(Exception, match=f"is {ELSEWHERE[card.kind]}'s and not PyTorch's, and is not simulated"):
            parse(text)
