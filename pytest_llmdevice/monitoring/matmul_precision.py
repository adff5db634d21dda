"""How exactly torch multiplies float32 matrices, a setting of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison

EXACT: Final = "exact"

_EXACT: Final = frozenset({"none", "ieee", "highest", ""})


def precision() -> Comparison:
    """The precision of float32 matrix products, by the old interface of torch and by the new one."""
    before = _settings()

    def compare() -> Iterator[Change]:
        after = _settings()
        if after == before:
            return
        _restore(before)
        for name, value in after.items():
            was, now = (EXACT if one in _EXACT else one for one in (before[name], value))
            if was != now:
                yield Change("precision", "float32 matrix products", was, f"{now} ({name})")
                # The others follow from it.
                return

    return compare


def _settings() -> dict[str, str]:
    import torch

    found = {"torch.set_float32_matmul_precision": ""}
    with suppress(RuntimeError):
        # After a use of the new interface the old one may refuse to answer.
        found["torch.set_float32_matmul_precision"] = torch.get_float32_matmul_precision()
    for name, owner in _owners():
        found[name] = getattr(owner, "fp32_precision", "")
    return found


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
    """What has an `fp32_precision`, by name: torch 2.9 and later."""
    import torch

    backends: Any = torch.backends
    parts = {
        "torch.backends.fp32_precision": backends,
        "torch.backends.cuda.matmul.fp32_precision": getattr(backends.cuda, "matmul", None),
        "torch.backends.mkldnn.matmul.fp32_precision": getattr(backends.mkldnn, "matmul", None),
    }
    return tuple((name, owner) for name, owner in parts.items() if owner is not None)
