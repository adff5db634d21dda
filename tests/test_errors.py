"""The text of an exception, whatever it does, and whose it is."""

from __future__ import annotations

import pytest

from pytest_llmdevice.errors import first_line, message_of, target_forgiven, tell_of_users


class Mute(Exception):  # as a library might call it
    def __str__(self) -> str:
        raise AttributeError("no text")


def test_the_first_line_is_named_with_its_type() -> None:
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("  \n padded \n")) == "ValueError: padded"


def test_a_line_that_announces_others_is_followed_by_the_one_that_says_what_went_wrong() -> None:
    missing = RuntimeError("Error(s) in loading:\n\tsize mismatch for a\n\tsize mismatch for b")
    assert first_line(missing) == "RuntimeError: Error(s) in loading: size mismatch for a"
    chained = "no class fits:\n\nan error:\nTraceback (most recent call last):\n  File 'a'\nValueError: no such map\n"
    assert first_line(ValueError(chained)) == "ValueError: no class fits: ValueError: no such map"
    assert first_line(ValueError("nothing:")) == "ValueError: nothing:"


def test_a_line_is_cut_where_it_was_asked_for() -> None:
    assert first_line(ValueError("x" * 50), 20) == "ValueError: xxxxxxxx"


def test_an_exception_that_cannot_say_what_it_is_is_named_all_the_same() -> None:
    assert first_line(Mute()) == "Mute: (its text cannot be had: AttributeError)"
    assert message_of(Mute()) == "(its text cannot be had: AttributeError)"


class Own(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), Own()])
def test_what_a_target_raises_is_forgiven(error: BaseException) -> None:
    with target_forgiven():
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.skip.Exception(), pytest.fail.Exception()])
def test_what_is_meant_for_pytest_is_not(error: BaseException) -> None:
    with pytest.raises(type(error)), target_forgiven():
        raise error


def test_an_interruption_is_a_users_unless_it_is_known_to_be_none() -> None:
    before = tell_of_users(lambda: False)
    try:
        with target_forgiven():
            raise KeyboardInterrupt
    finally:
        tell_of_users(before)
