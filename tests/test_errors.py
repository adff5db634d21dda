"""The text of an exception, whatever the exception does."""

from __future__ import annotations

from pytest_llmdevice.errors import first_line, message_of


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
