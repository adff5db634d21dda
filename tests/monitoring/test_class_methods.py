"""Methods of library classes that a load replaces: said, kept while the model is there, and put back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pytest_llmdevice import BuiltinTarget, Cell, examine

CELL = Cell("llama", "cpu", "float32")


def own(self: Any, hidden: Any) -> Any:
    return self.weight * nn.functional.rms_norm(hidden, hidden.shape[-1:], eps=self.variance_epsilon)


class Target(BuiltinTarget):
    """Replaces the forward of the norms: of the class, of its modules, or of none."""

    def __init__(self, where: str) -> None:
        self.where = where

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = super().load(checkpoint, cell)
        if self.where == "class":
            setattr(LlamaRMSNorm, "forward", own)  # noqa: B010  # as code does that is not checked for types
        for module in model.modules() if self.where == "modules" else ():
            if isinstance(module, LlamaRMSNorm):
                vars(module)["forward"] = MethodType(own, module)
        return model


@pytest.mark.parametrize(("where", "said"), [("class", ["LlamaRMSNorm.forward"]), ("modules", []), ("nowhere", [])])
def test_a_method_of_a_class_is_found_and_put_back(
    where: str, said: list[str], checkpoint: Callable[[str], str]
) -> None:
    before, ran = LlamaRMSNorm.forward, []
    for result in examine(Target(where), checkpoint("llama"), CELL):
        if result.check == "state":
            ran.append([finding.where for finding in result.findings])
            assert (LlamaRMSNorm.forward is own) is (where == "class")
    assert ran == [said]
    assert LlamaRMSNorm.forward is before
