"""Saves a loaded model into a folder and loads it from there, and leaves the model as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.pretrained import auto_class, from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.doors import dtype_of, same_data
from pytest_llmdevice.model.wrappers import core

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Put back what `save_pretrained` changes of the model: its configurations, and weights that it repacks.

    It writes the dtype into the configuration, as a word (transformers#31861). Weights of 4 bits that bitsandbytes
    repacked for the processor are unpacked for the files, not as they were.
    """
    configurations = {
        id(configuration): configuration
        for module in model.modules()
        for configuration in (getattr(module, "config", None), getattr(module, "generation_config", None))
        if hasattr(configuration, "__dict__")
    }
    kept = [(configuration, dict(vars(configuration))) for configuration in configurations.values()]
    packed = [
        (weight, weight.data, state, dict(vars(state)))
        for weight in model.parameters()
        if (state := getattr(weight, "quant_state", None)) is not None
    ]
    try:
        yield
    finally:
        for configuration, before in kept:
            vars(configuration).clear()
            vars(configuration).update(before)
        for weight, data, state, before in packed:
            if not same_data(weight, data):
                weight.data = data
            vars(state).clear()
            vars(state).update(before)


def is_adapted(model: Any) -> bool:
    """Whether PEFT wraps the model, so that only its adapters are saved."""
    return hasattr(model, "peft_config") and callable(getattr(model, "get_base_model", None))


def saved_again(model: Any, checkpoint: str, cell: Cell, folder: Path) -> nn.Module:
    """Save `model` into `folder` and load it from there, by itself, on the cell's device.

    A model with adapters is loaded from its folder onto a plain load of its base.
    """
    model.save_pretrained(folder)
    place = _place(model, cell)
    if is_adapted(model):
        from peft import PeftModel

        base: Any = from_pretrained(checkpoint, cell, **place)
        first, *others = model.active_adapters
        adapted: Any = PeftModel.from_pretrained(base, _adapter(folder, first), adapter_name=first)
        for name in others:
            adapted.load_adapter(_adapter(folder, name), adapter_name=name)
        if others:
            adapted.base_model.set_adapter([first, *others])
        found: nn.Module = adapted.eval()
        return found if place else found.to(cell.torch_device)
    kind: Any = type(model)
    code: dict[str, Any] = {}
    if not hasattr(kind, "from_pretrained"):
        kind, code = auto_class(model.config), {"trust_remote_code": False}
    again: nn.Module = kind.from_pretrained(
        folder,
        dtype="auto",
        attn_implementation=getattr(model.config, "_attn_implementation", None),
        local_files_only=True,
        **place,
        **code,
        **_experts(model),
    ).eval()
    return again if place else again.to(cell.torch_device)


def _adapter(folder: Path, name: str) -> str:
    """Where PEFT saves the adapter `name`."""
    return str(folder if name == "default" else folder / name)


def _place(model: Any, cell: Cell) -> dict[str, Any]:
    """The map of one device that quantized weights need to be read, nothing for others."""
    quantized = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    return {"device_map": {"": cell.torch_device}} if quantized or cell.quantization != "none" else {}


def _experts(model: Any) -> dict[str, str]:
    """How experts are computed, where transformers can be told, and was: no file says it."""
    from transformers import PreTrainedModel

    chosen = getattr(model.config, "_experts_implementation", None)
    if not isinstance(chosen, str) or not hasattr(PreTrainedModel, "set_experts_implementation"):
        return {}
    return {"experts_implementation": chosen}


def saved_dtype(folder: Path) -> str | None:
    """The dtype that `config.json` in `folder` names, None where there is no such file or word."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    words = json.loads(path.read_text("utf-8"))
    found = words.get("dtype", words.get("torch_dtype"))
    return dtype_name(found) if isinstance(found, str) else None


def stored_otherwise(folder: Path, model: Any) -> bool:
    """Whether a weight in the files of `folder` is in another floating-point dtype than in `model`."""
    from safetensors import safe_open

    dtypes = {name: dtype_of(tensor) for name, tensor in core(model).named_parameters(remove_duplicate=False)}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it has no iterator of its own
                own, stored = dtypes.get(name), _STORED.get(file.get_slice(name).get_dtype())
                if own is not None and own.is_floating_point and stored not in {None, dtype_name(own)}:
                    return True
    return False


_STORED: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names of dtypes in files of safetensors."""
