"""Runs a case and says what was seen: the same code for a real card, for the simulation and for the CPU alone."""

from __future__ import annotations

import ast
import copy
import io
import pickle
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .declare import Case, Gives, Outcome, Raises

_SHORT = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32"}


@dataclass(frozen=True)
class Observation:
    """What a case did.

    Attributes:
        outcome: what is compared with the expectation.
        values: of each tensor among the leaves its elements, in order.
    """

    outcome: Outcome
    values: list[list[Any]] = field(default_factory=list)


def make(text: str, seed: int) -> Any:
    """The operand that `"cuda:0 float32 2x3 kind"` describes, with values that depend on nothing but the text and
    its place."""
    import torch

    device, dtype_name, shape_text, *kinds = text.split()
    dtype = getattr(torch, _SHORT.get(dtype_name, dtype_name))
    shape = [] if shape_text == "0d" else [int(size) for size in shape_text.split("x")]
    numel = 1
    for size in shape:
        numel *= size
    kind = kinds[0] if kinds else ""
    values: list[Any]
    if dtype == torch.bool:
        values = [(place + seed) % 2 == 0 for place in range(numel)]
    elif not dtype.is_floating_point:
        values = [(place + seed) % 3 + (kind == "nonzero") for place in range(numel)]
        if kind == "sorted":
            values.sort()
        if kind == "index":
            values = [place % 2 for place in range(numel)]
        if kind == "distinct":
            values = list(range(numel))
    else:
        # Irregular, exact in every floating type, and nowhere equal.
        values = [((place * 7 + seed * 5 + 3) % 32 - 16) / 8 + 0.0625 for place in range(numel)]
        if kind == "positive":
            values = [abs(value) + 0.5 for value in values]
        if kind == "unit":
            values = [(abs(value) + 0.125) / 4 for value in values]
        if kind == "sorted":
            values.sort()
    tensor = torch.tensor(values, dtype=dtype).reshape(shape)
    if kind == "grad":
        return tensor.to(device).requires_grad_()
    return tensor if device == "cpu" else tensor.to(device)


def _seed() -> None:
    """As `torch.manual_seed(0)`, which notes a stack for each kind of device that is not there, and keeps them all."""
    import torch

    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)
    if torch.xpu.is_available():
        torch.xpu.manual_seed_all(0)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(0)


def run(case: Case) -> Any:
    """The result of the case's code."""
    import numpy as np
    import torch

    scope: dict[str, Any] = {
        "torch": torch,
        "F": torch.nn.functional,
        "nn": torch.nn,
        "np": np,
        "copy": copy,
        "io": io,
        "pickle": pickle,
    }
    _seed()
    for seed, (name, text) in enumerate(case.operands.items()):
        scope[name] = make(text, seed)
    tree = ast.parse(case.code)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), f"{case.id}: the last line is no expression"
    exec(compile(tree, case.id, "exec"), scope)
    return eval(compile(ast.Expression(last.value), case.id, "eval"), scope)


def leaves(result: Any) -> Iterator[Any]:
    if isinstance(result, dict):
        for key in result:
            yield from leaves(result[key])
    elif isinstance(result, (tuple, list)) and type(result).__name__ != "Size":
        for item in result:
            yield from leaves(item)
    else:
        yield result


def observe(case: Case) -> Observation:
    """What the case does here and now."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = list(leaves(run(case)))
            texts, values = [], []
            for leaf in result:
                if isinstance(leaf, torch.Tensor):
                    texts.append(f"{leaf.device} {str(leaf.dtype).removeprefix('torch.')}")
                    if case.values and leaf.device.type != "meta":
                        values.append(leaf.detach().cpu().flatten().tolist())
                else:
                    texts.append(f"= {leaf!r}")
    except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
        text = str(error)
        if type(error).__name__ == "AcceleratorError":
            text = text.partition("\n")[0]
        if text.startswith("Could not run 'aten::"):
            # What follows lists the backends that PyTorch was built with.
            text = f"{text.partition(' backend.')[0]} backend."
        return Observation(Raises(type(error).__name__, text))
    return Observation(Gives(tuple(texts)), values)


def on_cpu(case: Case) -> Case:
    """The case with every device read as the CPU."""
    return replace(
        case,
        operands={name: re.sub(r"^cuda:\d", "cpu", text) for name, text in case.operands.items()},
        code=re.sub(r"([\"'])cuda(:\d)?\1", r"\1cpu\1", case.code),
    )
