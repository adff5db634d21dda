"""Loads with an explicit device map that sends later layers to a second card, to the CPU's memory, or to disk."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.loading.pretrained import from_pretrained, layout, skeleton, when_freed
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn


def split(checkpoint: str, cell: Cell) -> nn.Module:
    """The later half of the decoder layers on the next card, the rest on the cell's device.

    Raises:
        UnsupportedByLibrary: there is no second device of this kind.
    """
    return _mapped(checkpoint, cell, second_device(cell))


def cpu_offload(checkpoint: str, cell: Cell) -> nn.Module:
    """The later half of the decoder layers in the CPU's memory, moved to the device for each forward."""
    return _mapped(checkpoint, cell, "cpu")


def disk_offload(checkpoint: str, cell: Cell) -> nn.Module:
    """The later half of the decoder layers on disk, in a folder that is removed with the model."""
    folder = tempfile.mkdtemp(prefix="llmdevice-offload-")
    try:
        model = _mapped(checkpoint, cell, "disk", offload_folder=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    when_freed(model, shutil.rmtree, folder, True)
    return model


def _mapped(checkpoint: str, cell: Cell, elsewhere: str, **options: Any) -> nn.Module:
    device_map = layout(skeleton(checkpoint, cell)).split(cell.device, elsewhere)
    with warnings.catch_warnings():
        # Some entries are tensors of the model itself (Bart's `final_logits_bias`). They have to be there.
        warnings.filterwarnings("ignore", message="The following device_map keys do not match any submodules")
        return from_pretrained(checkpoint, cell, device_map=device_map, **options)


def second_device(cell: Cell) -> str:
    """The card after the cell's own, the first one after the last.

    Raises:
        UnsupportedByLibrary: there is only one.
    """
    import torch

    kind = cell.torch_device.type
    count = getattr(torch, kind).device_count() if kind in {"cuda", "xpu"} else 1
    if count < 2:
        raise UnsupportedByLibrary(f"strategy 'split' needs two {kind} devices; this machine has {count}")
    return f"{kind}:{(cell.index + 1) % count}"
