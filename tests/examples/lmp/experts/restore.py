"""Expert weights in shared memory: published by one process, restored into a model by another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import torch
from accelerate.utils import set_module_tensor_to_device
from torch import nn
from transformers import AutoModelForCausalLM

log = logging.getLogger(__name__)


def configured_dtype(config: Any) -> torch.dtype:
    """The dtype that a configuration asks for, which it writes as a string or as a `torch.dtype`."""
    found = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.float32
    dtype = getattr(torch, found.removeprefix("torch.")) if isinstance(found, str) else found
    assert isinstance(dtype, torch.dtype)
    return dtype


def expert_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the experts, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if "expert" in name}


@contextmanager
def published(path: str) -> Iterator[Mapping[str, torch.Tensor]]:
    """The experts of the checkpoint in shared memory, in the dtype of its files, for as long as the context lasts."""
    source = AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True)
    experts = {name: parameter.detach() for name, parameter in expert_weights(source).items()}
    segment = SharedMemory(create=True, size=sum(tensor.nbytes for tensor in experts.values()))
    views: dict[str, torch.Tensor] = {}
    offset = 0
    for name, tensor in experts.items():
        view = torch.frombuffer(segment.buf, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        views[name] = view.view(tensor.shape).copy_(tensor)
        offset += tensor.nbytes
        del view
    try:
        yield views
    finally:
        views.clear()
        segment.close()
        segment.unlink()


def evict(model: nn.Module) -> None:
    """Leave the experts on `meta`: their weights come from elsewhere."""
    for name, parameter in expert_weights(model).items():
        owner, _, key = name.rpartition(".")
        setattr(model.get_submodule(owner), key, nn.Parameter(torch.empty(parameter.shape, device="meta")))


def restore(model: nn.Module, tensors: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Write the shared experts into the model, each on `device` and in `dtype`.

    The dtype is named: accelerate would convert to that of the tensor which it replaces, and `evict` left float32.
    """
    for name, shared in tensors.items():
        if shared.dtype != dtype:
            log.info("%s: %s converted to %s", name, shared.dtype, dtype)
        # A copy in any case: the segment goes.
        tensor = shared.to(device=device, dtype=dtype, copy=True)
        set_module_tensor_to_device(model, name, tensor.device, tensor, dtype=dtype, clear_cache=False)


def load(path: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A model on `device`: all but the experts from its files, the experts from shared memory."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True).to(device)
    evict(model)
    with published(path) as tensors:
        restore(model, tensors, device, configured_dtype(model.config))
    return model.eval()
