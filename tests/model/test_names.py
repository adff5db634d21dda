"""Names of a loaded model's tensors in its architecture, past whatever is around it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.model.wrappers import configuration_of, core, generating_module, runnable_module, wrapped_child


class Block(nn.Module):
    """Two layers, as an architecture has them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("table", torch.zeros(3))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.up(input_ids))
        return result


class Holder(nn.Module):
    """Keeps a model and does nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Around(nn.Module):
    """An adapter of one's own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.frozen = linear
        self.delta = nn.Linear(4, 2)


NAMES = {"up.weight", "up.bias", "norm.weight", "norm.bias", "table"}


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda model: model, ""),
        (nn.DataParallel, "module."),
        (Holder, "model."),
        (lambda model: Holder(nn.DataParallel(model)), "model.module."),
        (lambda model: torch.compile(model, backend="eager"), "_orig_mod."),
    ],
)
def test_a_wrapper_only_makes_names_longer(wrap: Callable[[nn.Module], nn.Module], prefix: str) -> None:
    block = Block()
    names = TensorNames(wrap(block))
    assert names.core is block
    assert {named.name: named.architecture for named in names.tensors} == {f"{prefix}{name}": name for name in NAMES}
    assert names.loaded_name("up.weight") == f"{prefix}up.weight"
    assert names.architecture_name(f"{prefix}up.weight") == "up.weight"
    assert names.module_name("up") == f"{prefix}up"


def test_a_part_that_is_compiled_keeps_its_name() -> None:
    block = Block()
    block.up = torch.compile(block.up, backend="eager")  # type: ignore[assignment]
    names = TensorNames(block)
    assert names.loaded_name("up.weight") == "up._orig_mod.weight"
    assert names.module_name("up") == "up._orig_mod"


def test_a_tensor_in_a_wrapper_of_an_unknown_class_is_found_by_the_architecture() -> None:
    block = Block()
    block.up = Around(block.up)  # type: ignore[assignment]
    names = TensorNames(block, Block())
    assert names.loaded_name("up.weight") == "up.frozen.weight"
    assert names.module_name("up") == "up.frozen"
    assert {named.name for named in names.tensors if named.architecture is None} == {"up.delta.weight", "up.delta.bias"}


def test_what_the_architecture_does_not_have_is_an_extra() -> None:
    block = Block()
    block.up.adapter = nn.Linear(2, 2)
    names = TensorNames(block, Block())
    assert names.architecture_name("up.adapter.weight") is None
    assert names.architecture_name("up.weight") == "up.weight"


def test_a_tensor_that_is_missing_is_called_what_it_would_be() -> None:
    assert TensorNames(nn.DataParallel(Block())).loaded_name("down.weight") == "module.down.weight"


def test_another_name_for_a_tensor_of_the_architecture_is_no_extra() -> None:
    parallel = nn.DataParallel(Block())
    parallel.word = parallel.module.up
    names = TensorNames(parallel, Block())
    assert names.architecture_name("word.weight") == "up.weight"
    assert {named.architecture for named in names.tensors} == NAMES


def test_what_runs_is_the_outermost_that_can() -> None:
    block = Block()
    assert runnable_module(Holder(block)) is block
    parallel = nn.DataParallel(block)
    assert runnable_module(parallel) is parallel
    assert generating_module(parallel) is parallel
    assert core(parallel) is block
    assert configuration_of(parallel) is None


def test_a_layer_stands_for_itself() -> None:
    assert wrapped_child(nn.Linear(1, 1)) is None
