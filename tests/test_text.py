"""Words that all messages share."""

from __future__ import annotations

import pytest

from pytest_llmdevice.text import first_line, joined, listed, message_of, plural


class Mute(Exception):  # as a library might call it
    def __str__(self) -> str:
        raise AttributeError("no text")


def test_the_first_line_is_named_with_its_type() -> None:
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("  \n padded \n")) == "ValueError: padded"


def test_a_line_is_cut_where_it_was_asked_for() -> None:
    assert first_line(ValueError("x" * 50), 20) == "ValueError: xxxxxxxx"


def test_an_exception_that_cannot_say_what_it_is_is_named_all_the_same() -> None:
    assert first_line(Mute()) == "Mute: (its text cannot be had: AttributeError)"
    assert message_of(Mute()) == "(its text cannot be had: AttributeError)"


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
