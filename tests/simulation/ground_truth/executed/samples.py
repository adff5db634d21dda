"""Makes cases from the samples of PyTorch's own databases of operators, with operands here and there."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from ..declare import CARD, CPU, OTHER, Case, Gives
from ..observe import observe
from .spelling import Spelled, Unspellable, called, spelled

MOST: Final = 2
"""Samples of an operator that are taken."""

KINDS: Final = {
    "float": ("", "positive", "unit"),
    "int": ("", "index", "nonzero", "distinct", "sorted"),
    "bool": ("",),
}
"""The kinds of values that are tried for operands, until the call works on the CPU."""

OTHER_DTYPES: Final = ("float16", "bfloat16", "float64", "int64", "uint8", "bool")
"""The dtypes that all operands of a call are also given."""

PAIRED_DTYPES: Final = ("float16", "int64")
"""The dtypes that one operand at a time is given, where the CPU takes it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A call that works on the CPU.

    Attributes:
        operator: its name in the database, or that of the function.
        code: the call.
        operands: name -> `"dtype shape kind"`.
        first: whether it is the first of its operator, which is also asked about numbers and other dtypes.
    """

    operator: str
    code: str
    operands: dict[str, str]
    first: bool = False

    def placed(self, devices: Sequence[str]) -> Case:
        """The case with its operands on `devices`."""
        at = "+".join(devices)
        operands = {
            name: f"{device} {text}" for device, (name, text) in zip(devices, self.operands.items(), strict=True)
        }
        shapes = ",".join(self.operands.values())
        return Case(f"{self.code} [{shapes}] {at}", operands, self.code, None, SOURCE, values=False)


SOURCE: Final = "torch.testing._internal: op_db, module_db"


def samples(only: Iterable[str] = ()) -> Iterator[Sample]:
    """The samples of all operators, or of some; each works on the CPU with the values that operands are made of."""
    import torch

    with warnings.catch_warnings():
        # They miss a package that only PyTorch's own tests need.
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

    wanted = set(only)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for operator in op_db:
        if (wanted and operator.name not in wanted) or not operator.dtypes:
            continue
        dtype = torch.float32 if torch.float32 in operator.dtypes else min(operator.dtypes, key=str)
        for number, call in enumerate(_calls(operator, dtype)):
            key = (call.code, tuple(call.operands.values()))
            if key in seen or not call.operands:
                continue
            seen.add(key)
            if (works := working(call)) is not None:
                yield Sample(operator.name, call.code, works, first=not number)


def _calls(operator: Any, dtype: Any) -> Iterator[Spelled]:
    import torch

    torch.manual_seed(0)
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in operator.sample_inputs("cpu", dtype, requires_grad=False):
            given = (sample.input, *sample.args)
            found = _spelled(operator.op, given, sample.kwargs)
            if found is None:
                continue
            yield found
            if not taken:
                yield from _variants(operator, found)
            taken += 1
            if taken == MOST:
                return


def _spelled(function: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Spelled | None:
    """The call as text, or the one call that it makes; None where neither has a text."""
    with suppress(Unspellable):
        return spelled(function, given, named)
    with suppress(Unspellable):
        return next((spelled(*call) for call in called(function, given, named)), None)
    return None


def _variants(operator: Any, call: Spelled) -> Iterator[Spelled]:
    """The same in place, and into a given result."""
    first = next(iter(call.operands), None)
    inplace = getattr(operator, "inplace_variant", None)
    name = getattr(inplace, "__name__", "")
    inner = call.code.partition("(")[2]
    if first and name.endswith("_") and not name.startswith("__") and inner.startswith(f"{first}"):
        rest = inner.removeprefix(first).removeprefix(", ")
        yield Spelled(f"{first}.{name}({rest}", call.operands)
    if getattr(operator, "supports_out", False) and call.operands and "out=" not in call.code and first:
        shape = call.operands[first]
        yield Spelled(f"{call.code[:-1]}, out=z)", {**call.operands, "z": shape})


def working(call: Spelled) -> dict[str, str] | None:
    """The operands with kinds of values with which the call works on the CPU; None where none does."""
    groups = {_group(text.split()[0]) for text in call.operands.values()}
    choices = {group: KINDS[group] for group in sorted(groups)}
    for kinds in product(*choices.values()):
        by_group = dict(zip(choices, kinds, strict=True))
        operands = {name: f"{text} {by_group[_group(text.split()[0])]}".strip() for name, text in call.operands.items()}
        if isinstance(on_host(call.code, operands).outcome, Gives):
            return operands
    return None


def on_host(code: str, operands: dict[str, str]) -> Any:
    """What the call does with all operands on the CPU."""
    return observe(Case("", {name: f"cpu {text}" for name, text in operands.items()}, code, None, "", values=False))


def _group(dtype: str) -> str:
    if dtype == "bool":
        return "bool"
    return "int" if dtype.startswith(("int", "uint")) else "float"


def placements(count: int) -> Iterator[tuple[str, ...]]:
    """Where operands can be: together, each away from the others, the first ones here and the last ones there."""
    seen = set()
    rows = [(CARD,) * count]
    for away in range(count):
        rows += [
            tuple(there if place == away else here for place in range(count))
            for here, there in ((CARD, CPU), (CPU, CARD), (CARD, OTHER))
        ]
    rows.append((CPU, *(CARD,) * (count - 1)))
    for row in rows:
        if row not in seen and row != (CPU,) * count:
            seen.add(row)
            yield row


META: Final = "meta"
"""Where weights stay that a loader made without numbers and never filled."""


def without_numbers(sample: Sample) -> Iterator[Case]:
    """`sample` on a card, but for each of its operands in turn, which is on `meta`; and the other way round."""
    count = len(sample.operands)
    places = [
        tuple(there if place == away else here for place in range(count))
        for away in range(count)
        for here, there in ((CARD, META), (META, CARD))
    ]
    for devices in dict.fromkeys(places) if count > 1 else ():
        yield sample.placed(devices)


ALL_PAIRED: Final = ("float16", "bfloat16", "float64", "int64", "uint8")
"""The dtypes that one operand at a time is given whether the CPU takes them or not."""


NARROW: Final = ("float8_e4m3fn", "float8_e5m2")
"""The dtypes of packed weights, which hardly any kernel takes."""


def pairs_of_dtypes(sample: Sample) -> Iterator[Case]:
    """`sample` on a card with each of its operands in turn in another dtype, but for what `cases` asks already.

    And with all of them in the narrow ones.
    """
    count = len(sample.operands)
    for dtype in NARROW:
        operands = {name: _changed(text, dtype=dtype) for name, text in sample.operands.items()}
        if operands != sample.operands:
            yield replace(sample, operands=operands).placed((CARD,) * count)
    asked = {case.id for case in cases(sample)} if count > 1 else set()
    for dtype, name in product(ALL_PAIRED, sample.operands if count > 1 else ()):
        text = _changed(sample.operands[name], dtype=dtype)
        case = replace(sample, operands={**sample.operands, name: text}).placed((CARD,) * count)
        if text != sample.operands[name] and case.id not in asked:
            yield case


def cases(sample: Sample, dtypes: Sequence[str] = OTHER_DTYPES) -> Iterator[Case]:
    """`sample` with operands in every place, as numbers of no dimension, and in other `dtypes`."""
    count = len(sample.operands)
    for devices in placements(count):
        yield sample.placed(devices)
    if not sample.first:
        return
    for name in sample.operands if count > 1 else ():
        # A number on the CPU goes with everything in many functions, and in others it does not.
        number = _with(sample, name, shape="0d")
        if number is not None:
            yield number.placed([CPU if each == name else CARD for each in sample.operands])
            yield number.placed([CARD if each == name else CPU for each in sample.operands])
    for dtype in dtypes:
        operands = {name: _changed(text, dtype=dtype) for name, text in sample.operands.items()}
        if operands != sample.operands:
            yield replace(sample, operands=operands).placed((CARD,) * count)
    paired = [dtype for dtype in PAIRED_DTYPES if dtype in dtypes]
    for dtype, name in product(paired, sample.operands if count > 1 else ()):
        if (changed := _with(sample, name, dtype=dtype)) is not None:
            yield changed.placed((CARD,) * count)


def _with(sample: Sample, name: str, *, dtype: str | None = None, shape: str | None = None) -> Sample | None:
    """`sample` with one operand changed; None where the CPU refuses it by itself, or nothing changes."""
    text = _changed(sample.operands[name], dtype=dtype, shape=shape)
    operands = {**sample.operands, name: text}
    if text == sample.operands[name] or not isinstance(on_host(sample.code, operands).outcome, Gives):
        return None
    return replace(sample, operands=operands)


def _changed(text: str, *, dtype: str | None = None, shape: str | None = None) -> str:
    """The description of an operand with another shape, or, if it holds numbers with fractions, another dtype."""
    parts = text.split()
    if dtype is not None and _group(parts[0]) == "float":
        parts[0] = dtype
    if shape is not None:
        parts[1] = shape
    return " ".join(parts)
