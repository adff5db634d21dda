"""Lists the functions of PyTorch that the libraries call while they load and run the models of the zoo.

From the repository's root:

    python -m tests.simulation.ground_truth.executed.used
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..declare import Case, Outcome
from .rows import Call

USED: Final = Path(__file__).with_name("used.json")

MODES: Final = (
    ("float32", "none", "device-map"),
    ("bfloat16", "none", "to"),
    ("bfloat16", "nf4", "device-map"),
    ("bfloat16", "int8", "device-map"),
)
"""Dtype, quantization and strategy in which each model is traced."""


def traced() -> list[str]:
    """The names of the functions and methods that Python calls, of all families and adapters, sorted."""
    from torch.overrides import TorchFunctionMode

    from pytest_llmdevice import Cell, zoo
    from pytest_llmdevice.inference.generation import generate
    from pytest_llmdevice.loading.target import BuiltinTarget

    names: set[str] = set()

    class Names(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.add(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    for model in (*zoo.families(), "llama+lora", "gpt-oss", "qwen3-next", "mamba2"):
        for dtype, quantization, strategy in MODES:
            cell = Cell(model, "cpu", dtype, quantization, strategy)
            # What a model does not run with, such as the int8 weights of latent attention, is traced up to there.
            with suppress(Exception), Names():
                loaded = BuiltinTarget().load(str(zoo.checkpoint(model)), cell)
                generate(loaded, [[3, 5, 7], [11, 13, 17, 19]], 3)
    return sorted(name for name in names if name and not name.startswith("__"))


def used() -> frozenset[str]:
    """The names, as they were traced."""
    return frozenset(json.loads(USED.read_text(encoding="utf-8")))


_CALLED: Final = re.compile(r"^(?:torch|F|[a-h])(?:\.\w+)*?\.(\w+)\(")


def function_of(case: Case) -> str:
    """The name of the function that the code of `case` calls; empty where it is none alone."""
    found = _CALLED.match(case.code)
    return found[1] if found else ""


def rows_of(calls: Iterable[Call], names: Collection[str], always: Collection[str]) -> list[tuple[str, Case, Outcome]]:
    """The rows about the functions `names`, and all of the operators `always`: operator, case, outcome."""
    return [
        (call.operator, case, outcome)
        for call in calls
        for case, outcome in call.rows
        if call.operator in always or function_of(case) in names
    ]


if __name__ == "__main__":
    USED.write_text(json.dumps(traced(), indent=0) + "\n", encoding="utf-8")
