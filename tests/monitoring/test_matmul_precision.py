"""The precision of float32 matrix products is watched, whichever interface of torch sets it, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_llmdevice.monitoring.process_state import unchanged_process


def allow_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def new_interface() -> None:
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "matmul") or not hasattr(backends.mkldnn.matmul, "fp32_precision"):
        pytest.skip("torch 2.9 and later")
    backends.mkldnn.matmul.fp32_precision = "bf16"


WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "medium": (lambda: torch.set_float32_matmul_precision("medium"), "medium"),
    "high": (lambda: torch.set_float32_matmul_precision("high"), "high"),
    "allow_tf32": (allow_tf32, "high"),
    "fp32_precision": (new_interface, "bf16"),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_seen_once_and_put_back(way: str) -> None:
    change, named = WAYS[way]
    with unchanged_process() as changes:
        change()
    (found,) = changes
    assert (found.kind, found.before) == ("precision", "exact")
    assert found.after.startswith(named)
    assert torch.get_float32_matmul_precision() == "highest"
    with unchanged_process() as again:
        pass
    assert again == []


def test_to_ask_for_what_there_is_already_is_no_change() -> None:
    with unchanged_process() as changes:
        torch.set_float32_matmul_precision("highest")
    assert changes == []
