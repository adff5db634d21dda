"""Some models cannot run under `inference_mode`, as those of quanto in int4: no check of ours puts them under it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks.unusual import Target

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def without_inference_mode(model: Any) -> Any:
    def refuse(*_: Any) -> None:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("Inference tensors do not track version counter.")

    for module in model.modules():
        module.register_forward_pre_hook(refuse)
    return model


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_model_that_cannot_run_under_inference_mode_passes_every_check(family: str) -> None:
    cell = Cell(family, "cpu", "float32")
    target = Target(change=without_inference_mode)
    for result in examine(target, zoo.checkpoint(family), cell, folder=cache_directory() / "references"):
        assert result.passed, result.message()
