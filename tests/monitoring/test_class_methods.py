"""What is left on classes and models: methods that a load replaces, put back afterwards, and hooks of a generation."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pytest_llmdevice import BuiltinTarget, Cell, examine
from pytest_llmdevice.diagnosis.hints.state import HOOKS

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


class Watching(BuiltinTarget):
    """Asks for hidden states, for which transformers leaves hooks of its own, or leaves one itself."""

    def __init__(self, *, leaves: bool) -> None:
        self.leaves = leaves

    def generate(self, model: Any, prompts: Any, max_new_tokens: int) -> list[list[int]]:
        rows: list[list[int]] = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                output_hidden_states=True,
                return_dict_in_generate=True,
            )
            rows.append(made.sequences[0, len(prompt) :].tolist())
        if self.leaves:
            model.register_forward_hook(lambda *_: None)
        return rows


@pytest.mark.parametrize("leaves", [False, True])
def test_hooks_that_a_generation_leaves_are_found_and_those_of_the_library_are_not(
    leaves: bool, checkpoint: Callable[[str], str]
) -> None:
    found = {result.check: result for result in examine(Watching(leaves=leaves), checkpoint("llama"), CELL)}
    assert [finding.hint for finding in found["state"].findings] == [HOOKS] * leaves


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
