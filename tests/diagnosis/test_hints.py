"""The table of known causes."""

from __future__ import annotations

import re

import pytest

from pytest_llmdevice import Hint
from pytest_llmdevice.diagnosis.hints import HINTS


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.name)
def test_each_says_what_to_look_at_and_where_it_was_seen(hint: Hint) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", hint.name)
    assert len(hint.text.split()) >= 5
    assert re.fullmatch(r"https://\S+", hint.source)
    assert hint.when
    assert not hint.when.endswith(".")
    assert hint.failure is not None
