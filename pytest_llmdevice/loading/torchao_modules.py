"""Asks torchao for several of its quantizations at once, by the names of modules, and for experts."""

from __future__ import annotations

import re
from fnmatch import translate
from importlib import import_module
from typing import Any, Final

from pytest_llmdevice.matrix.axes import EVERY, Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DENSE

DEFAULT: Final = "_default"
"""torchao's name for all linear layers that nothing else is said of."""

WEIGHTS: Final = r"(?:weight|\w*proj)"
"""The weight of a layer, and the stacks of a module of experts; no bias."""

EXPERTS: Final = rf"re:.*experts\.{WEIGHTS}"


def by_module(cell: Cell) -> Any:
    """The `TorchAoConfig` of a cell in which modules have quantizations of their own, all of them torchao's."""
    known = current().of(Quantization)
    asked: dict[str, Any] = {}
    for pattern, name in known[cell.quantization].modules:
        config = None if name == DENSE else known[name].config(cell).quant_type.fqn_to_config[DEFAULT]
        for key in (EXPERTS, DEFAULT) if pattern == EVERY else (_spelled(pattern),):
            asked.setdefault(key, config)
    return for_modules(asked)


def for_modules(asked: dict[str, Any]) -> Any:
    """The `TorchAoConfig` of `asked`: names, or `re:` and a pattern, to configurations of torchao; None for dense."""
    import transformers

    library: Any = import_module("torchao.quantization")
    wrap: Any = transformers.TorchAoConfig
    return wrap(library.FqnToConfig(asked))


def _spelled(pattern: str) -> str:
    """A pattern of modules as torchao has it: a regular expression for the whole name of a parameter."""
    # Of a module it would take the bias too.
    return rf"re:(?:.*\.)?{_inside(translate(pattern))}\.{WEIGHTS}"


def _inside(expression: str) -> str:
    """What `fnmatch.translate` gives, without the end of the text that it puts behind it."""
    return re.sub(r"\\[zZ]$", "", expression)


def experts_of(cell: Cell) -> dict[str, str]:
    """What `from_pretrained` is told beside the configuration of `cell`: how experts are computed.

    In one after the other: torchao's tensors (0.18) know neither `transpose` nor `bmm` of the stack as a whole.
    """
    import transformers

    ours = current().of(Quantization)[cell.quantization].library == "torchao"
    can = hasattr(transformers.PreTrainedModel, "set_experts_implementation")
    return {"experts_implementation": "eager"} if ours and can else {}
