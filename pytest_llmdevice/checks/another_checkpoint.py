"""Checks that offloaded weights stay those of their own checkpoint while another one of the same shapes is loaded."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.state import OFFLOADED_TOGETHER
from pytest_llmdevice.loading.adapters import is_adapter
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.stored_packed import stored_method
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.weights import offloaded_value

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_llmdevice.loading.target import Target

LARGEST: Final = 2**28
"""Bytes. A larger checkpoint is not written once more."""


def offloaded_findings(target: Target, model: nn.Module, checkpoint: str, cell: Cell) -> Inspection:
    """Load a checkpoint of the same names and shapes beside `model`, and compare what both of them have offloaded.

    The numbers of the other checkpoint are the negatives of the first one's, so that nobody has to know them. Models
    without offloaded weights are not looked at, and neither are adapters and packed files.

    Args:
        target: the code under test.
        model: what it loaded for `cell`.
        checkpoint: the local folder that it loaded.
        cell: what was asked for.
    """
    first = _offloaded(model)
    if not first or is_adapter(checkpoint) or stored_method(checkpoint):
        return [], {}
    with negated(checkpoint) as other:
        if other is None:
            return [], {}
        loaded = Loaded.load(target, other, cell)
        if loaded.model is None:
            return [], {"another checkpoint": f"not loaded: {loaded.cause or loaded.skipped}"}
        try:
            second, after = _offloaded(loaded.model), _offloaded(model)
        finally:
            loaded.release()
    changed = [name for name, value in first.items() if after.get(name) != value]
    if changed:
        found = "others, since another checkpoint of the same shapes was loaded"
        return [Finding(changed[0], "its numbers, on disk or in memory", found, OFFLOADED_TOGETHER)], {}
    shared = [name for name, value in second.items() if first.get(name) == value]
    if shared:
        where = f"{shared[0]} of another checkpoint of the same shapes"
        return [Finding(where, "the numbers of that one", "those of the first one", OFFLOADED_TOGETHER)], {}
    return [], {"offloaded beside another checkpoint": len(first)}


def _offloaded(model: nn.Module) -> Mapping[str, str]:
    """Digests of what hooks hold for the parameters of `model`, by name, where it is not all zero."""
    found = {}
    for name, role, tensor in tensors(model):
        value = offloaded_value(model, name) if tensor.is_meta and role == "parameter" else None
        if value is not None and bool((value != 0).any()):
            found[name] = hashlib.sha256(_bytes(value)).hexdigest()
    return found


def _bytes(value: torch.Tensor) -> bytes:
    import torch

    return bytes(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


@contextmanager
def negated(checkpoint: str) -> Iterator[Path | None]:
    """A folder of the same name as that of `checkpoint`, with the negatives of its numbers; None where it cannot be."""
    from safetensors.torch import load_file, save_file

    source = Path(checkpoint)
    files = sorted(source.glob("*.safetensors"))
    if not files or sum(path.stat().st_size for path in files) > LARGEST:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="llmdevice-another-", ignore_cleanup_errors=True) as above:
        folder = Path(above) / source.resolve().name
        shutil.copytree(source, folder)
        for path in files:
            weights: Any = load_file(path)
            turned = {name: -weight if weight.is_floating_point() else weight for name, weight in weights.items()}
            save_file(turned, folder / path.name, metadata={"format": "pt"})
        yield folder
