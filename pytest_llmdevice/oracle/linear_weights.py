"""Lists the weights that quantization is about, and says which of them are to be packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """One weight that quantization is about: of a linear layer, or of a stack of experts."""

    module: str
    parameter: str
    elements: int
    expert: bool
    quantized: bool


def left_dense(weight: LinearWeight, patterns: Sequence[str]) -> LinearWeight:
    """`weight`, not to be quantized if one of `patterns` fits its module."""
    return replace(weight, quantized=False) if any(fits(each, weight.module) for each in patterns) else weight


def fits(pattern: str, module: str) -> bool:
    """Whether `pattern` is the name of `module`, or the end of it."""
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def linear_weights(bones: Any, cell: Cell) -> tuple[LinearWeight, ...]:
    """Linear weights and stacks of expert weights.

    Not quantized are the head, the last weight, what is tied to another one, what the class keeps in float32, and
    classes of their own that only derive from a linear layer. Source: `get_keys_to_not_convert` of transformers' base
    quantizer, and `replace_with_bnb_linear`: `type(module) is nn.Linear`.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    entry = quantization_of(cell)
    quantize = entry.packs
    head = bones.get_output_embeddings()
    kept = set(getattr(bones, "_keep_in_fp32_modules", None) or ())
    # A weight that several modules have is tied. The last one is taken for a head, also where the class names another.
    last = next(reversed(dict(bones.named_parameters())), "")
    owners = Counter(id(one) for module in bones.modules() for one in module.parameters(recurse=False))
    found = []
    for name, module in bones.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            plain = type(module) is nn.Linear or isinstance(module, Conv1D)
            plain &= ("Conv1D" if isinstance(module, Conv1D) else "Linear") in entry.layers
            left = owners[id(module.weight)] > 1 or f"{name}.weight" == last
            excluded = module is head or left or not plain or bool(kept & set(name.split(".")))
            found.append(
                LinearWeight(
                    name, f"{name}.weight", module.weight.numel(), expert=False, quantized=quantize and not excluded
                )
            )
        elif not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            found += [
                LinearWeight(name, f"{name}.{key}", parameter.numel(), expert=True, quantized=quantize)
                for key, parameter in module.named_parameters(recurse=False)
                if parameter.ndim == 3 and "expert" in f"{type(module).__name__} {name}".lower()
            ]
    return tuple(found)
