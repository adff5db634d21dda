"""Recognizes exceptions of torch, transformers, accelerate and bitsandbytes by their texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import raised

_TEXTS: Final[tuple[tuple[Hint, tuple[str, ...]], ...]] = (
    (raised.MEMORY, (r"out of memory", r"not enough memory")),
    (
        raised.LOST,
        (
            r"device-side assert",
            r"illegal (memory access|instruction|address)",
            r"misaligned address",
            r"unspecified launch failure",
            r"uncorrectable ECC",
            r"hardware (stack )?error",
            r"device (is )?(lost|unavailable|not ready)|DEVICE_LOST",
            r"HSA_STATUS_ERROR",
            r"CUDA error: unknown error",
        ),
    ),
    (
        raised.META,
        (
            r"Cannot copy out of meta tensor",
            r"cannot be called on meta tensors",
            r"is on the meta device, we need a",
            r"Tensor on device meta",
            r"\bmeta and (cpu|cuda|mps|xpu)|(cpu|cuda:\d+|mps|xpu:\d+) and meta\b",
        ),
    ),
    (
        raised.MOVED,
        (
            r"can't move a model that has some modules offloaded",
            r"is not supported for `?4-bit`? or `?8-bit`? (bitsandbytes )?models",
            r"cannot cast a bitsandbytes model",
        ),
    ),
    (
        raised.DEVICES,
        (
            r"Expected all tensors to be on the same device",
            r"found at least two devices",
            r"is on \S+, different from other tensors on",
            r"must be on the current device",
            r"should be either on cpu or on the same device",
            r"to be on the same device",
            r"to have the same device type",
            r"is not on the expected device",
            r"Placeholder storage has not been allocated",
            r"cannot be accessed from Triton",
            r"Expected a \w+ device, but got",
            r"can't convert \S+ device type tensor to numpy",
            r"Expected a '\w+' (device type )?(for )?generator",
        ),
    ),
    (
        raised.DTYPES,
        (
            r"(must|to) have the same dtype",
            r"expected scalar type \w+ but found",
            r"Input type .* and (bias|weight) type .* should be the same",
            r"source expected to have the same dtype",
            r"source and destination dtypes match",
            r"to have one of the following scalar types",
            r"tensors used as indices must be",
        ),
    ),
    (
        raised.NO_SUCH_DEVICE,
        (
            r"invalid device ordinal",
            r"not compiled with CUDA enabled",
            r"No CUDA GPUs are available",
            r"Found no NVIDIA driver",
            r"device type at start of device string",
            r"Attempting to deserialize object on",
            r"Invalid device string",
        ),
    ),
    (raised.FLOAT64, (r"Cannot convert a MPS Tensor to float64", r"doesn't support float64")),
    (
        raised.CAPABILITY,
        (
            r"not implemented for '\w+'",
            r"is not supported on MPS",
            r"blockwise of \d+ is not supported",
            r"not support bfloat16",
        ),
    ),
)

_PATTERNS: Final = tuple((hint, re.compile("|".join(texts))) for hint, texts in _TEXTS)


def hint_of(error: BaseException) -> Hint | None:
    """The usual cause of `error` or of an exception in its chain; None if no text is known."""
    for cause in chain(error):
        text = f"{type(cause).__name__}: {cause}"
        for hint, pattern in _PATTERNS:
            if pattern.search(text):
                return hint
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, then the exceptions that it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def first_line(error: BaseException) -> str:
    """The type and the first line of the text of an exception: `"ValueError: no such file"`."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
