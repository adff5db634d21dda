"""lmp: experts restored from shared memory as they came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import set_module_tensor_to_device
from experts import restore as lmp
from torch import nn
from transformers import AutoModelForCausalLM

from pytest_llmdevice import Cell


class Restoring(ABC):
    """The project's load with another `restore`."""

    @abstractmethod
    def restore(self, model: nn.Module, name: str, shared: torch.Tensor, cell: Cell) -> None:
        """Put one tensor of an expert back."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, local_files_only=True)
        model = model.to(cell.torch_device)
        lmp.evict(model)
        with lmp.published(checkpoint) as tensors:
            self._all(model, tensors, cell)
        return model.eval()

    def _all(self, model: nn.Module, tensors: Mapping[str, torch.Tensor], cell: Cell) -> None:
        for name, shared in tensors.items():
            self.restore(model, name, shared, cell)


class AsTheyCame(Restoring):
    """The bug: no conversion."""

    def restore(self, model: nn.Module, name: str, shared: torch.Tensor, cell: Cell) -> None:
        tensor = shared.to(cell.torch_device, copy=True)
        set_module_tensor_to_device(model, name, tensor.device, tensor, dtype=tensor.dtype, clear_cache=False)


class ConvertedInVain(Restoring):
    """Half of the fix: converted before accelerate is called, which converts back to what `meta` had: float32."""

    def restore(self, model: nn.Module, name: str, shared: torch.Tensor, cell: Cell) -> None:
        tensor = shared.to(cell.torch_device, cell.torch_dtype, copy=True)
        set_module_tensor_to_device(model, name, tensor.device, tensor, clear_cache=False)


class LeftOnMeta(Restoring):
    """Experts that nobody restored."""

    def restore(self, model: nn.Module, name: str, shared: torch.Tensor, cell: Cell) -> None:
        if ".1." not in name:
            lmp.restore(model, {name: shared}, cell.torch_device, cell.torch_dtype)
