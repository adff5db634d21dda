"""Sets weights that another process left in shared memory, one by one, into a skeleton on the meta device.

The way lmp restores the experts of DeepSeek and Mixtral models. Its bug was to write each tensor as it came:
the configuration said bfloat16, the experts became float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.loading import attention
from pytest_llmdevice.loading.foreign_code import without_foreign_code
from pytest_llmdevice.loading.pretrained import auto_class, configuration
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.dtypes import intended_dtype

if TYPE_CHECKING:
    import torch
    from torch import nn


def shared_memory(checkpoint: str, cell: Cell) -> nn.Module:
    """Restore the model from shared memory, each tensor converted to the dtype the configuration asks for."""
    from accelerate import init_empty_weights
    from accelerate.utils import set_module_tensor_to_device
    from transformers import GenerationConfig

    config = configuration(checkpoint)
    config.dtype = cell.torch_dtype
    with init_empty_weights(include_buffers=False), without_foreign_code():
        model: Any = auto_class(config).from_config(
            config,
            dtype=cell.torch_dtype,
            attn_implementation=attention.implementation(cell),
            trust_remote_code=False,
        )
    made = model.state_dict()
    with published(checkpoint) as (weights, tied):
        for name, tensor in weights.items():
            # What the class creates in a dtype of its own (Mamba's A_log, in transformers 4) stays in it.
            own = made[name].dtype
            wanted = cell.torch_dtype
            dtype = own if own != wanted else intended_dtype(model, name, tensor.dtype, wanted)
            # A copy in any case: a tensor that still looked into the segment would dangle once it is closed.
            value = tensor.to(device=cell.torch_device, dtype=dtype, copy=True)
            set_module_tensor_to_device(model, name, cell.torch_device, value=value, dtype=dtype, clear_cache=False)
        del weights, tensor, value
    if tied:
        model.tie_weights()
    # What no checkpoint holds (rotary frequencies, masks) was computed while the skeleton was built.
    model.to(cell.torch_device)
    model.generation_config = GenerationConfig.from_pretrained(checkpoint, local_files_only=True)
    evaluating: nn.Module = model.eval()
    return evaluating


@contextmanager
def published(checkpoint: str) -> Iterator[tuple[dict[str, torch.Tensor], bool]]:
    """The checkpoint's tensors as a loader process would leave them, and whether some were one tensor there.

    The tensors are views into one shared memory segment.

    Names and dtypes are those of the loaded model's `state_dict`, which is what such a process shares
    (transformers 5 fuses the experts of a checkpoint while it reads it). The segment goes with the context.
    """
    import torch

    config = configuration(checkpoint)
    with without_foreign_code():
        # The configuration may name an implementation, also one of the hub; its weights are the same with any.
        source = auto_class(config).from_pretrained(
            checkpoint, dtype="auto", attn_implementation="eager", local_files_only=True, trust_remote_code=False
        )
    state: Mapping[str, torch.Tensor] = source.state_dict()
    # A configuration may say tied while the files hold two tensors; the loaded model knows.
    tied = len({tensor.data_ptr() for tensor in state.values()}) < len(state)
    segment = SharedMemory(create=True, size=sum(_aligned(tensor.nbytes) for tensor in state.values()))
    try:
        views: dict[str, torch.Tensor] = {}
        offset = 0
        for name, tensor in state.items():
            count = tensor.numel()
            view = torch.frombuffer(segment.buf, dtype=tensor.dtype, count=count, offset=offset)
            views[name] = view.copy_(tensor.reshape(-1)).view(tensor.shape)
            offset += _aligned(tensor.nbytes)
        del view, tensor, state, source
        yield views, tied
        views.clear()
    finally:
        segment.close()
        segment.unlink()


def _aligned(size: int) -> int:
    # torch wants a view's offset to be a multiple of the element size; 16 serves every dtype.
    return -(-size // 16) * 16
