"""How a case is written down: operands, a piece of code, what real CUDA makes of it and where that is known from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

CPU: Final = "cpu"
CARD: Final = "cuda:0"
OTHER: Final = "cuda:1"


@dataclass(frozen=True)
class Gives:
    """The code has a result.

    Attributes:
        leaves: one text for each leaf of the result, in order: `"cuda:0 float32"` for a tensor, `"= True"` (the repr)
            for anything else.
    """

    leaves: tuple[str, ...]


@dataclass(frozen=True)
class Raises:
    """The code raises.

    Attributes:
        type: the name of the exception's class.
        text: its text, whole (of an `AcceleratorError` the first line: the advice below it changes with each release).
    """

    type: str
    text: str


Outcome = Gives | Raises


@dataclass(frozen=True)
class Case:
    """One row of the ground truth.

    Attributes:
        id: stable name.
        operands: name -> `"device dtype shape"` and possibly a kind of values: `"cuda:0 float32 2x3 positive"`.
        code: Python source; what its last line evaluates to is observed.
        expected: what documentation and sources promise; None for an open question that only a card can answer.
        source: file and function of PyTorch, or documentation, that the expectation rests on.
        values: whether values can be compared (not those of random or uninitialised memory).
        alone: whether the code runs on the CPU alone, with every device read as `cpu`.
    """

    id: str
    operands: dict[str, str]
    code: str
    expected: Outcome | None
    source: str
    values: bool = True
    alone: bool = True

    @property
    def cards(self) -> int:
        """How many cards it takes."""
        texts = " ".join([*self.operands.values(), self.code])
        return 2 if re.search(r"cuda:1|\bcuda\(1\)|device\(1\)|\bto\(1\)|'cuda', 1\)|device=1\b", texts) else 1


def gives(*leaves: str) -> Gives:
    return Gives(leaves)


def same(common: str, other: str) -> Raises:
    """TensorIterator's error; `common` is the first device that is not the CPU, results before operands."""
    return Raises(
        "RuntimeError",
        f"Expected all tensors to be on the same device, but found at least two devices, {common} and {other}!",
    )


def checked(argument: str, device: str, common: str, method: str) -> Raises:
    """The error of the check that PyTorch's code generator puts in front of a kernel."""
    return Raises(
        "RuntimeError",
        f"Expected all tensors to be on the same device, but got {argument} is on {device}, different from other "
        f"tensors on {common} (when checking argument in method {method})",
    )


def runtime(text: str) -> Raises:
    return Raises("RuntimeError", text)


ITERATOR: Final = "aten/src/ATen/TensorIterator.cpp: TensorIteratorBase::compute_types"
GENERATED: Final = (
    "torchgen/dest/register_dispatch_key.py (device checks) and native_functions.yaml; "
    "c10::impl::common_device_check_failure"
)
PROMOTION: Final = "docs: torch.Tensor attributes, type promotion; TensorIterator.cpp: compute_common_dtype"
KERNEL: Final = "native_functions.yaml: a kernel for CUDA; its result is on the device of its operand"


def placements(count: int) -> Iterator[tuple[str, ...]]:
    """Where the operands of a function can be: together, one of them away, one of them alone on a card."""
    seen = set()
    rows = [(CARD,) * count, (OTHER,) * count]
    for away in range(count):
        rows.append(tuple(CPU if place == away else CARD for place in range(count)))
        rows.append(tuple(CARD if place == away else CPU for place in range(count)))
    rows.append((*(CARD,) * (count - 1), OTHER))
    for row in rows:
        if row not in seen:
            seen.add(row)
            yield row


def family(
    name: str, code: str, method: str, operands: dict[str, str], result: str | Sequence[str], source: str = ""
) -> Iterator[Case]:
    """A function behind the generated check, in every placement.

    Args:
        name: first part of the ids.
        code: the call; operands have the names of the checked arguments.
        method: the generated wrapper, without its prefix.
        operands: argument -> dtype, shape and kind, in the order of the check.
        result: dtypes of the result, or the text of a plain value (`"= False"`).
        source: who calls the checked function, when the code does not.
    """
    results = [result] if isinstance(result, str) else result
    for devices in placements(len(operands)):
        # The first argument's device is the common one, a card or not.
        common = devices[0]
        wrong = [(argument, device) for argument, device in zip(operands, devices, strict=True) if device != common]
        leaves = [text if text.startswith("=") else f"{common} {text}" for text in results]
        yield Case(
            f"{name}/{'+'.join(devices)}",
            {argument: f"{device} {rest}" for (argument, rest), device in zip(operands.items(), devices, strict=True)},
            code,
            checked(*wrong[0], common, f"wrapper_CUDA_{method}") if wrong else gives(*leaves),
            f"{source}; {GENERATED}" if source else GENERATED,
        )
