"""Asks torchao for the weights of a model by their names: for experts, and for modules with settings of their own.

Its own `_default`, for all linear layers that nothing else is said of, takes their biases too (transformers 5.23, of
which `param_needs_quantization` looks at the class of the module alone).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.experts import expert_stacks

if TYPE_CHECKING:
    from torch import nn


def options_for(said: Any, bones: nn.Module, cell: Cell) -> dict[str, Any]:
    """What `from_pretrained` is told for a cell of torchao's.

    Experts are computed one after the other, which torchao's tensors (0.18) can: of a stack as a whole they know
    neither `transpose` nor `bmm`.

    Args:
        said: the configuration of the quantization; None where several are mixed, and none was given for them.
        bones: the model, maybe without data.
        cell: what was asked for.
    """
    import transformers

    entry = quantization_of(cell)
    experts = any(expert_stacks(name, module) for name, module in bones.named_modules())
    if not experts and said is not None:
        return {"quantization_config": said}
    named = _named(said, bones, cell)
    head: Any = getattr(bones, "get_output_embeddings", lambda: None)()
    kept = any(module is head and f"{name}.weight" in named for name, module in bones.named_modules())
    library: Any = import_module("torchao.quantization")
    make: Any = transformers.TorchAoConfig
    # A list of one's own takes the place of the default one, which has the head.
    config = make(library.FqnToConfig(named), modules_to_not_convert=[] if entry.modules and kept else None)
    can = experts and hasattr(transformers.PreTrainedModel, "set_experts_implementation")
    return {"quantization_config": config} | ({"experts_implementation": "eager"} if can else {})


def _named(said: Any, bones: Any, cell: Cell) -> dict[str, Any]:
    """Name of a weight -> the configuration of torchao for it."""
    from torch import nn

    entry = quantization_of(cell)
    known = current().of(Quantization)
    head = bones.get_output_embeddings()
    found: dict[str, Any] = {}
    for name, module in bones.named_modules():
        linear = isinstance(module, nn.Linear) and module is not head
        kind = known.get(entry.of_module(name, usual=linear or not isinstance(module, (nn.Linear, nn.Embedding))))
        if kind is None or not kind.packs:
            continue
        config = (said if said is not None else kind.config(cell)).quant_type
        if isinstance(module, (nn.Linear, nn.Embedding)):
            found[f"{name}.weight"] = config
        elif not kind.no_experts:
            found |= {f"{name}.{key}": config for key in expert_stacks(name, module)}
    return found
