"""Makes cases from the samples of PyTorch's own database of modules: parameters in one place, inputs in another."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from .samples import Sample, working
from .spelling import Spelled, Unspellable, spelled_module

MOST: Final = 3
"""Samples of a module that are taken; where training differs from inference, of each."""

DTYPES: Final = ("float16", "bfloat16", "float64")
"""The dtypes that inputs and parameters are also given; a module refuses others."""


def samples(only: Iterable[str] = ()) -> Iterator[Sample]:
    """The samples of all modules, or of some; each works on the CPU with the values that operands are made of."""
    with warnings.catch_warnings():
        # They miss a package that only PyTorch's own tests need.
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db

    wanted = set(only)
    for module in module_db:
        if wanted and module.name not in wanted:
            continue
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for call in _calls(module):
            key = (call.code, tuple(call.operands.values()))
            if key not in seen and (works := working(call)) is not None:
                yield Sample(module.name, call.code, works, first=not seen)
                seen.add(key)


def _calls(module: Any) -> Iterator[Spelled]:
    """Its calls, in training and, where that differs, in inference, and the first of them with a backward pass."""
    import torch

    for training in (True, False) if module.train_and_eval_differ else (True,):
        torch.manual_seed(0)
        found: dict[tuple[str, tuple[str, ...]], Spelled] = {}
        with warnings.catch_warnings(), suppress(NotImplementedError):
            warnings.simplefilter("ignore")
            for sample in module.module_inputs_func(
                module, device="cpu", dtype=torch.float32, requires_grad=False, training=training
            ):
                if sample.forward_input is None:
                    continue
                with suppress(Unspellable):
                    call = spelled_module(module.module_cls, sample, training=training, place=_placed(sample, module))
                    found.setdefault((call.code, tuple(call.operands.values())), call)
                if len(found) == MOST:
                    break
        calls = list(found.values())
        if training and calls and ".to(" in calls[0].code:
            backward = f"{calls[0].code}.sum().backward()\n[each.grad for each in m.parameters()]"
            calls.insert(1, Spelled(backward, calls[0].operands))
        yield from calls


def _placed(sample: Any, module: Any) -> bool:
    """Whether it has something that can be moved."""
    made = module.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
    return any(True for _ in (*made.parameters(), *made.buffers()))
