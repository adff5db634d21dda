"""Words that all messages share."""

from __future__ import annotations

import pytest

from pytest_llmdevice.text import joined, listed, plural


@pytest.mark.parametrize(
    ("count", "noun", "many", "text"),
    [
        (0, "cell", "", "0 cells"),
        (1, "cell", "", "1 cell"),
        (1200, "cell", "", "1,200 cells"),
        (2, "entry", "entries", "2 entries"),
        (1, "entry", "entries", "1 entry"),
    ],
)
def test_a_count_goes_with_its_noun(count: int, noun: str, many: str, text: str) -> None:
    assert plural(count, noun, many) == text


def test_lists_are_written_in_words() -> None:
    assert listed("abcde") == "a, b, c and 2 more"
    assert (joined("a"), joined("ab"), joined("abc")) == ("a", "a and b", "a, b and c")
