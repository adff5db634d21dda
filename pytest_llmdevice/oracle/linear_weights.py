"""Lists the weights that quantization is about, and says which of them are to be packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.axes import Quantization, fits
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DENSE
from pytest_llmdevice.model.experts import expert_stacks


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """One weight that quantization is about: of a linear layer, of a stack of experts, or of an embedding to be packed.

    Attributes:
        module: the name of its module.
        parameter: its name.
        elements: how many numbers it has.
        expert: whether it is of a stack of experts.
        quantization: the name of the quantization that it is to have, `"none"` for a dense one.
    """

    module: str
    parameter: str
    elements: int
    expert: bool
    quantization: str

    @property
    def quantized(self) -> bool:
        """Whether it is to be packed."""
        return self.quantization != DENSE


def left_dense(weight: LinearWeight, patterns: Sequence[str]) -> LinearWeight:
    """`weight`, not to be quantized if one of `patterns` fits its module."""
    return replace(weight, quantization=DENSE) if any(fits(each, weight.module) for each in patterns) else weight


def linear_weights(bones: Any, cell: Cell) -> tuple[LinearWeight, ...]:
    """Linear weights and stacks of expert weights, and embeddings of which the quantization says that they are packed.

    Not quantized are the head, the last weight, what is tied to another one, and, by some libraries, what the class
    keeps in float32, and classes of their own that only derive from a linear layer. Source: `get_keys_to_not_convert`
    of transformers' base quantizer; `replace_with_bnb_linear`: `type(module) is nn.Linear`; `param_needs_quantization`
    of torchao's and `replace_with_quanto_layers`: `isinstance(module, nn.Linear)`, the former with the name of the
    weight, which does not end with that of a module to be kept.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    entry = quantization_of(cell)
    known = current().of(Quantization)
    head = bones.get_output_embeddings()
    kept = set(getattr(bones, "_keep_in_fp32_modules", None) or ())
    # A weight that several modules have is tied. The last one is taken for a head, also where the class names another.
    last = next(reversed(dict(bones.named_parameters())), "")
    owners = Counter(id(one) for module in bones.modules() for one in module.parameters(recurse=False))

    def asked(name: str, module: Any, *, usual: bool) -> str:
        """The quantization of a layer; none of one that its library does not pack, whatever is asked for."""
        found = entry.of_module(name, usual=usual)
        if found == DENSE or isinstance(module, nn.Embedding):
            return found
        kind = Conv1D if isinstance(module, Conv1D) else nn.Linear
        own = type(module) is kind or known[found].subclasses
        own &= not (known[found].keeps_float32 and kept & set(name.split(".")))
        return found if own and kind.__name__ in known[found].layers else DENSE

    found = []
    for name, module in bones.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            tied = owners[id(module.weight)] > 1
            usual = module is not head and not tied and f"{name}.weight" != last
            quantization = asked(name, module, usual=usual)
            found.append(LinearWeight(name, f"{name}.weight", module.weight.numel(), False, quantization))
        elif isinstance(module, nn.Embedding):
            if (quantization := asked(name, module, usual=False)) != DENSE:
                found.append(LinearWeight(name, f"{name}.weight", module.weight.numel(), False, quantization))
        else:
            found += [
                LinearWeight(name, f"{name}.{key}", parameter.numel(), True, entry.of_module(name, usual=True))
                for key, parameter in expert_stacks(name, module).items()
            ]
    return tuple(found)
