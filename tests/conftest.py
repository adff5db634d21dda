"""What every test folder shares."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

collect_ignore = ["examples"]


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Tiny models gain nothing from threads, and worker processes share two cores."""
    import torch

    torch.set_num_threads(1)
