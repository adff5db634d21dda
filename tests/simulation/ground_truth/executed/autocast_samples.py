"""Makes cases of calls in a region of autocast for cards, from the samples of the database of operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from ..declare import CARD, Case
from . import samples
from .samples import Sample

PREFIX: Final = "autocast "
"""What stands in front of an operator's name in their rows."""

DTYPES: Final = ("float16", "bfloat16", "float64")
"""The dtypes that operands are also given."""


@cache
def listed() -> frozenset[str]:
    """The operations for which PyTorch has a rule of autocast for cards."""
    import torch

    names = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    return frozenset(name.removeprefix("aten::").partition(".")[0] for name in names)


def cases(only: Iterable[str] = ()) -> Iterator[tuple[str, Case]]:
    """Operator and case: of listed operators with operands everywhere, of others on one card.

    Those may be composed of listed ones.
    """
    seen: set[str] = set()
    for sample in samples.samples(only):
        if not sample.first or sample.operator in seen:
            continue
        seen.add(sample.operator)
        within = Sample(PREFIX + sample.operator, region(sample.code), sample.operands, first=True)
        found = samples.cases(within, DTYPES)
        name = sample.operator.rpartition(".")[2]
        if not {name, sample.operator.replace(".", "_")} & listed():
            found = (case for case in found if all(text.startswith(CARD) for text in case.operands.values()))
        for case in found:
            yield within.operator, case


def region(code: str) -> str:
    """`code`, an expression, in a region of autocast."""
    return f"with torch.autocast('cuda', dtype=torch.float16):\n    result = {code}\nresult"
