"""Checks that no tensor was left without data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.placement import META, NO_DATA
from pytest_llmdevice.model.device_map import offload_hook

if TYPE_CHECKING:
    from torch import nn


def check_meta(model: nn.Module) -> Result:
    """No tensor is on the meta device, unless an offload hook will bring it and has what it is to bring."""
    findings, looked, offloaded = [], 0, 0
    for name, role, tensor in tensors(model):
        looked += 1
        if not tensor.is_meta:
            continue
        hook = offload_hook(model, name)
        if hook is None or (role == "buffer" and not hook.offload_buffers):
            findings.append(Finding(name, f"{role} with data", "meta, and no hook that would bring it", META))
        elif why := _missing(hook, name.rpartition(".")[2]):
            findings.append(Finding(name, f"offloaded {role}, with data", why, NO_DATA))
        else:
            offloaded += 1
    return Result("meta", tuple(findings), {"tensors": looked, "offloaded": offloaded})


def _missing(hook: Any, key: str) -> str:
    """Why `hook` cannot bring `key`, empty when it can, as far as that shows without reading it."""
    weights = getattr(hook, "weights_map", None)
    dataset = getattr(weights, "dataset", None)
    if dataset is None:
        return ""
    full = f"{getattr(weights, 'prefix', '')}{key}"
    in_memory = getattr(dataset, "state_dict", dataset)
    if in_memory and full in in_memory:
        return "meta, and so is what its hook has" if in_memory[full].is_meta else ""
    index = getattr(dataset, "index", None) or {}
    if full not in index:
        return f"meta, and its hook has nothing of the name {full}"
    file = index[full].get("safetensors_file") or _file(getattr(dataset, "save_folder", None), full)
    return f"meta, and its file {file} is not there" if file is not None and not Path(file).is_file() else ""


def _file(folder: Any, key: str) -> Path | None:
    return Path(folder) / f"{key}.dat" if folder is not None else None


META_TENSORS_CHECK: Final = Check(
    "meta",
    lambda exam: check_meta(exam.model),
    "nothing is left on `meta`, unless an offload hook brings it",
    "A tensor has no data; what is computed with it is whatever was in memory.",
    failure="placement",
    after="loads",
)
