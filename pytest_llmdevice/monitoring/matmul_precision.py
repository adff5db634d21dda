"""Detects and reverts changes of the precision with which torch multiplies float32 matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison

EXACT: Final = "exact"

_EXACT: Final = frozenset({"none", "ieee", "highest", ""})


def matmul_precision() -> Comparison:
    """Watch the precision of float32 matrix products, in torch's old interface and in the new one (torch 2.9)."""
    before = _settings()

    def compare() -> Iterator[Change]:
        after = _settings()
        if after == before:
            return
        _restore(before)
        for name, value in after.items():
            was, now = (EXACT if setting in _EXACT else setting for setting in (before[name], value))
            if was != now:
                yield Change("precision", "float32 matrix products", was, f"{now} ({name})")
                # The other settings follow from this one.
                return

    return compare


def _settings() -> dict[str, str]:
    import torch

    settings = {"torch.set_float32_matmul_precision": ""}
    with suppress(RuntimeError):
        # The old interface may raise after the new one was used.
        settings["torch.set_float32_matmul_precision"] = torch.get_float32_matmul_precision()
    for name, owner in _owners():
        settings[name] = getattr(owner, "fp32_precision", "")
    return settings


def _restore(settings: dict[str, str]) -> None:
    import torch

    owners = _owners()
    legacy = settings["torch.set_float32_matmul_precision"]
    with suppress(RuntimeError):
        torch.set_float32_matmul_precision(legacy or "highest")
    for name, owner in owners:
        if settings[name] and getattr(owner, "fp32_precision", "") != settings[name]:
            owner.fp32_precision = settings[name]


def _owners() -> tuple[tuple[str, Any], ...]:
    """The objects that have an attribute `fp32_precision` (torch 2.9 and later), with the name of the attribute."""
    import torch

    backends: Any = torch.backends
    parts = {
        "torch.backends.fp32_precision": backends,
        "torch.backends.cuda.matmul.fp32_precision": getattr(backends.cuda, "matmul", None),
        "torch.backends.mkldnn.matmul.fp32_precision": getattr(backends.mkldnn, "matmul", None),
    }
    return tuple((name, owner) for name, owner in parts.items() if owner is not None)
