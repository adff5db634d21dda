"""What the tests of tables that register entries share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_llmdevice.matrix.registry import Registry, built_in, in_force


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry of the test's own, in force while it runs."""
    with in_force(built_in()) as registry:
        yield registry
