"""Knows checkpoints of PEFT: folders with an adapter that belongs to the weights of another checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

CONFIG: Final = "adapter_config.json"
"""The file by which PEFT and transformers recognize such a folder (`peft.utils.CONFIG_NAME`)."""

WEIGHTS: Final = "adapter_model.safetensors"
"""The file with the adapter's tensors (`peft.utils.SAFETENSORS_WEIGHTS_NAME`)."""

PREFIX: Final = "base_model.model."
"""What PEFT puts in front of the base's names in the file of an adapter."""


def is_adapter(checkpoint: str | Path) -> bool:
    """Whether the folder `checkpoint` holds an adapter, and no model of its own."""
    return (Path(checkpoint) / CONFIG).is_file() and not (Path(checkpoint) / "config.json").is_file()


def base_of(checkpoint: str) -> str:
    """The folder of the weights that `checkpoint` is about: itself, or of an adapter the base that it names.

    Raises:
        CheckpointError: an adapter names a base that is no folder here.
    """
    if not is_adapter(checkpoint):
        return checkpoint
    path = Path(checkpoint) / CONFIG
    try:
        named = json.loads(path.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{path} does not name the model that the adapter belongs to")
    for folder in (Path(named), Path(checkpoint) / named):
        if (folder / "config.json").is_file():
            return str(folder)
    raise CheckpointError(
        f"{path} names the base {named!r}, which is no folder with a config.json here: download it, and write its "
        "folder into base_model_name_or_path"
    )


def tuner_layers(model: nn.Module) -> Iterator[Any]:
    """The layers of PEFT in `model`, each around one of the base's."""
    for module in model.modules():
        if any(base.__name__ == "BaseTunerLayer" for base in type(module).__mro__):
            yield module


def is_live(model: nn.Module) -> bool:
    """Whether adapters of PEFT work beside the weights of `model`, which are then the base's: not merged into them."""
    layers = list(tuner_layers(model))
    return bool(layers) and not all(getattr(layer, "merged", False) for layer in layers)


def adapter_tensors(checkpoint: str) -> dict[str, torch.Tensor]:
    """The tensors of the adapter in `checkpoint`, by the base's names, such as `layers.0.q_proj.lora_A.weight`."""
    from safetensors.torch import load_file

    tensors = load_file(Path(checkpoint) / WEIGHTS)
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def merged_load(checkpoint: str, dtype: str) -> nn.Module:
    """The base of the adapter in `checkpoint` with the adapter merged into its weights, on the cpu in `dtype`."""
    from peft import PeftModel

    from pytest_llmdevice.loading.pretrained import from_pretrained
    from pytest_llmdevice.matrix.cell import Cell

    base: Any = from_pretrained(base_of(checkpoint), Cell("plain", "cpu", dtype))
    model: Any = PeftModel.from_pretrained(base, checkpoint)
    found: nn.Module = model.merge_and_unload()
    return found.eval()
