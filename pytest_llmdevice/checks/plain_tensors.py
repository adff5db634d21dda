"""Knows what the tensors of a model should hold: those of a plain load of its checkpoint on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.loading.adapters import is_adapter
from pytest_llmdevice.loading.stored_packed import stored_packed
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DENSE
from pytest_llmdevice.model.settings import setting, vocabulary_size
from pytest_llmdevice.oracle.linear_weights import LinearWeight, linear_weights
from pytest_llmdevice.oracle.plain_load import plain_model
from pytest_llmdevice.oracle.unpacked import unpacked_modules

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Plain:
    """Plain loads of a checkpoint on the CPU.

    Attributes:
        checkpoint: its folder.
        dtype: the dtype of the cell.
        model: the model loaded in float32.
        tensors: name -> tensor of that model.
        spread: the standard deviation with which the class initializes weights.
        transposed: the names of the weights of `Conv1D` modules, which are stored transposed.
        live: whether adapters are kept beside the weights, which are then the base's.
        unpacked: the modules whose weights the checkpoint's files pack, or packed before they were unpacked.
        weights: the weights that quantization is about, with the one that each is to have.
    """

    checkpoint: str
    dtype: str
    model: nn.Module
    tensors: Mapping[str, torch.Tensor]
    spread: float
    transposed: frozenset[str]
    live: bool = False
    unpacked: frozenset[str] = frozenset()
    weights: tuple[LinearWeight, ...] = ()

    @classmethod
    def of(cls, checkpoint: str, cell: Cell, *, live: bool = False) -> Plain:
        """Load `checkpoint` for `cell`; of an adapter that is `live`, the base."""
        model: Any = plain_model(checkpoint, live=live)
        spread = setting(model.config, "initializer_range")
        transposed = frozenset(
            f"{name}.weight" for name, module in model.named_modules() if type(module).__name__ == "Conv1D"
        )
        known = spread if isinstance(spread, float) else 0.02
        weights = linear_weights(model, cell)
        unpacked = unpacked_modules(checkpoint) | stored_packed(checkpoint, [weight.module for weight in weights])
        return cls(checkpoint, cell.dtype, model, by_name(model), known, transposed, live, unpacked, weights)

    def packing_error(self, name: str) -> float:
        """How far the packed weight `name` may be from its values; of one that is to be dense, by any quantization.

        There the quantization check says what is wrong with being packed at all.
        """
        known = current().of(Quantization)
        asked = next((weight.quantization for weight in self.weights if weight.parameter == name), DENSE)
        return known[asked].packing_error or max(entry.packing_error for entry in known.values())

    def as_linear(self, name: str) -> torch.Tensor:
        """The weight `name` in the layout of `nn.Linear`, in which bitsandbytes packs also `Conv1D` layers."""
        weight = self.tensors[name]
        return weight.T if name in self.transposed else weight

    def without_new_rows(self, value: torch.Tensor, name: str) -> torch.Tensor:
        """`value` without the rows that were added to the vocabulary, for example for a padding token."""
        config: Any = self.model.config
        expected, own = self.tensors[name], vocabulary_size(config)
        grown = own is not None and value.shape[:1] > (own,) and expected.shape == (own, *value.shape[1:])
        return value[:own] if grown else value

    def in_dtype(self, name: str) -> torch.Tensor | None:
        """The tensor `name` of a plain load in the cell's dtype; None if that is float32."""
        if self.dtype == "float32":
            return None
        return by_name(plain_model(self.checkpoint, self.dtype, live=self.live)).get(name)

    def base(self, name: str) -> torch.Tensor | None:
        """The tensor `name` before an adapter was merged into it; None where none was, or it changed nothing."""
        if self.live or not is_adapter(self.checkpoint):
            return None
        base, merged = by_name(plain_model(self.checkpoint, live=True)).get(name), self.tensors[name]
        return None if base is None or base.shape != merged.shape or bool((base == merged).all()) else base


def by_name(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of `model` by name, without a graph."""
    return {name: tensor.detach() for name, _, tensor in tensors(model)}
