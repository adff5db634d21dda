"""Words that all messages share."""

from __future__ import annotations

import json
import math

import pytest
from hostile import EVERYTHING, TEXT, obeyed

from pytest_llmdevice.text import harmless, joined, json_text, listed, plural


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


@pytest.mark.parametrize(
    "code", [*range(0x100), *range(0x2000, 0x2070), 0xD800, 0xDFFF, 0xFEFF, 0x3164, 0xFE0F, 0xE0041]
)
def test_a_harmless_text_has_no_character_that_is_obeyed_or_unseen(code: int) -> None:
    assert not obeyed(harmless(f"a{chr(code)}b"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::x", r"\x3a:error::x"),
        ("  ::error file=a::x", r"  \x3a:error file=a::x"),
        ("a::b::c", "a::b::c"),
        ("see ##[group]x", r"see \x23#[group]x"),
        ("##vso[task.complete]", r"\x23#vso[task.complete]"),
        ("## heading", "## heading"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CJK UNIFIED IDEOGRAPH-6A21}", "café 模"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb", r"a\nb"),
        ("\udcff", r"\udcff"),
    ],
)
def test_a_harmless_text_can_still_be_read(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_line_ends_stay_where_they_are_asked_for_and_each_line_is_harmless() -> None:
    assert harmless("a\n::error::b\r\n", lines=True) == "a\n\\x3a:error::b\\r\n"


def test_colours_stay_where_they_are_asked_for_and_nothing_else_does() -> None:
    assert harmless("\x1b[1;31mred\x1b[0m\x1b[2J", colours=True) == "\x1b[1;31mred\x1b[0m\\x1b[2J"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_what_every_parser_takes(indent: int | None) -> None:
    data = {EVERYTHING: [EVERYTHING, math.nan, math.inf, -math.inf, 1.5, None]}
    text = json_text(data, indent=indent)
    assert not obeyed(text)
    assert text.isascii()
    (key, value), *_ = json.loads(text, parse_constant=pytest.fail).items()
    assert key == value[0] == TEXT + r"\ud800 \udcff"
    assert value[1:] == [None, None, None, 1.5, None]
