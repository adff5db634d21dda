"""Calls `from_pretrained` for all strategies, and lists the parts of a model that a device map can name."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.loading import attention, quantization
from pytest_llmdevice.loading.adapters import base_of
from pytest_llmdevice.loading.checkpoint_files import Stamp, stamps
from pytest_llmdevice.loading.foreign_code import (
    refuse_foreign_code,
    unpack_without_kernels,
    unpacks,
    without_foreign_code,
)
from pytest_llmdevice.loading.stored_packed import stored_method
from pytest_llmdevice.loading.torchao_modules import options_for
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig


def configuration(checkpoint: str) -> PreTrainedConfig:
    """The `config.json` of the checkpoint, or of an adapter's base: offline, without code that it names.

    Raises:
        UnsupportedByLibrary: no model can be made of it without code of the hub.
    """
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(
        base_of(checkpoint), local_files_only=True, trust_remote_code=False
    )
    unpack_without_kernels(config)
    refuse_foreign_code(config)
    return config


def auto_class(config: PreTrainedConfig) -> Any:
    """`AutoModelForSeq2SeqLM` for encoder-decoders and for what it alone knows, else `AutoModelForCausalLM`.

    Some decoders that also hear (Voxtral, Qwen2-Audio) are registered with the first only.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    # Untyped upstream.
    causal, both = (set(known._model_mapping.keys()) for known in (AutoModelForCausalLM, AutoModelForSeq2SeqLM))  # noqa: SLF001
    only = type(config) in both and type(config) not in causal
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder or only else AutoModelForCausalLM


def model_class(checkpoint: str) -> type:
    """The class that a plain load of `checkpoint` makes; it is imported. Raises whatever its configuration raises."""
    config = configuration(checkpoint)
    found: type = auto_class(config)._model_mapping[type(config)]  # noqa: SLF001  # untyped upstream
    return found


def from_pretrained(checkpoint: str, cell: Cell, **options: Any) -> nn.Module:
    """Load `checkpoint` in the cell's dtype, attention and quantization; `options` say where it goes."""
    options = _quantized(checkpoint, cell) | options
    config = configuration(checkpoint)
    if unpacks(config):
        options["config"] = config
    if cell.kind == "cpu" and stored_method(checkpoint):
        # Left out, packed weights go to the first card where there is one.
        options.setdefault("device_map", {"": "cpu"})
    with without_foreign_code():
        model: nn.Module = auto_class(config).from_pretrained(
            checkpoint,
            dtype=cell.torch_dtype,
            attn_implementation=attention.implementation(cell),
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    return model.eval()


def _quantized(checkpoint: str, cell: Cell) -> dict[str, Any]:
    """What `from_pretrained` is told of the quantization of `cell`."""
    said = quantization.config(cell)
    entry = quantization.quantization_of(cell)
    if entry.library == "torchao" and (said is None or not entry.modules):
        return options_for(said, skeleton(checkpoint, cell), cell)
    return {} if said is None else {"quantization_config": said}


def skeleton(checkpoint: str, cell: Cell) -> nn.Module:
    """The model of `checkpoint` on the meta device, in the cell's dtype: names, classes and shapes, no data.

    Not to be changed: the next one who asks for it gets the same.
    """
    return _skeleton(checkpoint, cell.torch_dtype, stamps(checkpoint).get("config.json"))


@lru_cache(maxsize=4)
def _skeleton(checkpoint: str, dtype: torch.dtype, _written: Stamp | None) -> nn.Module:
    import torch

    config = configuration(checkpoint)
    with torch.device("meta"), without_foreign_code():
        model: nn.Module = auto_class(config).from_config(
            config, dtype=dtype, attn_implementation="eager", trust_remote_code=False
        )
    return model.eval()


def stored_equal(checkpoint: str, names: Sequence[str]) -> bool:
    """Whether the checkpoint's safetensors files hold one value under all of `names` that they have.

    transformers 5 does not tie weights that the configuration ties and the files hold as different tensors.
    """
    import torch
    from safetensors import safe_open

    weights: list[torch.Tensor] = []
    for path in sorted(Path(base_of(checkpoint)).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            present = set(file.keys())
            weights += [file.get_tensor(name) for name in names if name in present]
    return all(torch.equal(weights[0], other) for other in weights[1:])


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a model that a device map may name, in the order of execution.

    Attributes:
        parts: names that together cover every parameter and buffer, none inside another.
        layers: those of `parts` that are layers of the last stack (the decoder's, where there are two).
    """

    parts: tuple[str, ...]
    layers: tuple[str, ...]

    def split(self, first: str, second: str) -> dict[str, str]:
        """A map with the later half of the layers on `second` and all else on `first`.

        What follows the last layer stays on `first`: a head that is tied to the embedding must not part
        from it (accelerate refuses or breaks such maps when a part is offloaded).
        """
        later = set(self.layers[len(self.layers) // 2 :])
        return {part: second if part in later else first for part in self.parts}


def layout(model: nn.Module) -> Layout:
    """The layout of `model`, which may be a skeleton.

    Raises:
        UnsupportedByLibrary: the model has no stack of at least two layers, so that nothing can be split.
    """
    from torch import nn

    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) >= 2 and _is_stack(model, module)
    ]
    if not stacks:
        raise UnsupportedByLibrary(f"{type(model).__name__} has no stack of at least two layers to split between")
    layers = {id(layer) for _, stack in stacks for layer in stack}
    parts = tuple(_parts(model, "", layers))
    prefix = f"{stacks[-1][0]}."
    return Layout(parts, tuple(part for part in parts if part.startswith(prefix)))


def _is_stack(model: nn.Module, candidate: nn.ModuleList) -> bool:
    # Experts and sub-layers are module lists too. `_no_split_modules` names the layer classes; accelerate
    # relies on it in the same way.
    names = getattr(model, "_no_split_modules", None)
    if names:
        return type(candidate[0]).__name__ in names
    return sum(1 for _ in candidate.parameters()) > sum(1 for _ in model.parameters()) // 2


def _parts(module: nn.Module, prefix: str, layers: set[int]) -> Iterator[str]:
    if id(module) in layers or not any(id(inner) in layers for inner in module.modules()):
        yield prefix
        return
    join = f"{prefix}." if prefix else ""
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield join + name
    for name, child in module.named_children():
        yield from _parts(child, join + name, layers)


def when_freed(model: nn.Module, callback: Any, *arguments: Any) -> None:
    """Call `callback(*arguments)` once nothing holds `model` any more, at the latest when Python exits."""
    weakref.finalize(model, callback, *arguments)
