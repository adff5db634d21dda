"""A checkpoint that is quantized by itself is unpacked whole: no weight is left as a new model has it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from torch import nn

from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.loading import stored_packed
from pytest_llmdevice.oracle.plain_load import plain_model

TRAITS = {"bnb-int8": 0.02, "bnb-4bit": 0.12, "fp8": 0.05}


# transformers 4 with bitsandbytes 0.48 quantizes stored integers anew on a cpu, which makes their scales 127 (what the
# library computes with is 229 times too large), and loads no FP8 without a card.
@pytest.mark.skipif(Version(version("transformers")) < Version("5"), reason="a plain load of these is wrong or refused")
@pytest.mark.parametrize(
    ("model", "trait"),
    [("gpt2", "bnb-int8"), ("gpt2", "bnb-4bit"), ("bloom", "bnb-4bit"), ("opt", "fp8"), ("t5", "bnb-int8")],
)
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_every_weight_is_near_that_which_was_packed(model: str, trait: str, checkpoint: Callable[[str], str]) -> None:
    dense, _ = stored_packed.unpacked_load(checkpoint(f"{model}~{trait}"), "float32")
    packed_from = dict(plain_model(checkpoint(model)).named_parameters())
    for name, weight in dense.named_parameters():
        wanted = packed_from[name]
        error = float((weight.detach().float() - wanted.detach().float()).norm() / wanted.detach().float().norm())
        assert error < TRAITS[trait], name


class Odd(nn.Module):
    """A layer that is packed in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(3, 2, dtype=torch.uint8))


def test_what_nothing_unpacks_is_said_and_not_left_as_it_was_made() -> None:
    dense = nn.ModuleDict({"odd": nn.Embedding(4, 3)})
    packed = nn.ModuleDict({"odd": Odd()})
    with pytest.raises(DoesNotApply, match=r"^odd\.weight of the checkpoint is packed in a Odd, which nothing here"):
        stored_packed._fill(dense, packed)
