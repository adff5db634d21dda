"""Compares packed weights with the files of a checkpoint that is quantized by itself: what it holds packed stays so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.values import PACKED
from pytest_llmdevice.loading.stored_packed import stored_method, stored_tensors
from pytest_llmdevice.model.doors import plain_values
from pytest_llmdevice.model.names import TensorNames, buffers_of, parameters_of
from pytest_llmdevice.model.weights import has_packed_class

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Stored:
    """The packed tensors of a checkpoint that a loaded model has as they are in the files.

    Attributes:
        names: name in the loaded model -> the tensor in the files.
        modules: the modules of the architecture that they belong to.
    """

    names: Mapping[str, torch.Tensor] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()

    @classmethod
    def of(cls, checkpoint: str, model: nn.Module, names: TensorNames) -> Stored:
        """Find them in `model`; none for a checkpoint that is dense, and of layers that were unpacked while loading."""
        if not stored_method(checkpoint):
            return cls()
        there = parameters_of(model) | buffers_of(model)
        found: dict[str, torch.Tensor] = {}
        modules: set[str] = set()
        for name, tensor in stored_tensors(checkpoint).items():
            path, _, key = name.rpartition(".")
            own = names.module_name(path)
            loaded = f"{own}.{key}" if own else key
            packed = not tensor.is_floating_point() or tensor.itemsize == 1
            # What a quantization of the registry has packed is unpacked by it: a library may repack it for its kernels.
            mine = there.get(loaded) if own is not None and packed else None
            if mine is not None and mine.dtype == tensor.dtype and not has_packed_class(mine):
                modules.add(path)
        for name, tensor in stored_tensors(checkpoint).items():
            path, _, key = name.rpartition(".")
            own = names.module_name(path)
            if path in modules and f"{own}.{key}" in there:
                found[f"{own}.{key}"] = tensor
        return cls(found, frozenset(modules))

    def findings(self, model: nn.Module) -> tuple[list[Finding], int]:
        """What is not as in the files, up to one rounding of scales to the dtype that they are in; and how many were
        compared.
        """
        import torch

        there = parameters_of(model) | buffers_of(model)
        findings = []
        for name, wanted in self.names.items():
            value = plain_values(there[name])
            if value is None or value.is_meta:
                continue
            value = value.cpu()
            if value.shape != wanted.shape:
                findings.append(Finding(name, f"shape {tuple(wanted.shape)}", f"shape {tuple(value.shape)}", PACKED))
            elif not torch.equal(_bits(value), _bits(wanted.to(value.dtype))):
                findings.append(Finding(name, "the packed numbers of the checkpoint", "others", PACKED))
        return findings, len(self.names)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    # Some dtypes of a byte compare with nothing.
    return tensor.contiguous().flatten().view(torch.uint8)
