"""Defines the kinds of device that PyTorch knows, and how a process finds out how many of each are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.hardware import host
from pytest_llmdevice.matrix.axes import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable


def _one_cpu() -> int:
    return 1


def _cuda_cards(*, hip: bool) -> Callable[[], int]:
    def count() -> int:
        import torch

        # A HIP build of PyTorch calls its cards `cuda`.
        return torch.cuda.device_count() if bool(torch.version.hip) is hip and torch.cuda.is_available() else 0

    return count


def _xpu_cards() -> int:
    import torch

    return torch.xpu.device_count() if torch.xpu.is_available() else 0


def _one_mps() -> int:
    import torch

    return int(torch.backends.mps.is_available())


def _cpu(_: str) -> Mapping[str, str]:
    import torch

    capabilities: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    return {"name": host.cpu(capabilities(), torch.backends.cpu.get_cpu_capability()).name}


def _nvidia(device: str) -> Mapping[str, str]:
    properties = _cuda_properties(device)
    return {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}


def _amd(device: str) -> Mapping[str, str]:
    properties = _cuda_properties(device)
    # `gfx90a:sramecc+:xnack-`: what follows the colon are settings, not the architecture.
    architecture = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
    return {"name": properties.name, "capability": architecture}


def _cuda_properties(device: str) -> Any:
    import torch

    return torch.cuda.get_device_properties(device)


def _intel(device: str) -> Mapping[str, str]:
    import torch

    return {"name": torch.xpu.get_device_properties(device).name}


def _apple(_: str) -> Mapping[str, str]:
    return {"name": "Apple GPU"}


def _ram(_: str) -> tuple[int, int]:
    # MPS shares the RAM of the machine.
    return host.memory()


def _cuda_memory(device: str) -> tuple[int, int]:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(total), int(free)


def _xpu_memory(device: str) -> tuple[int, int]:
    import torch

    total = int(torch.xpu.get_device_properties(device).total_memory)
    return total, total - int(torch.xpu.memory_reserved(device))


DEVICE_KINDS: Final = (
    DeviceKind("cpu", "a cpu", "cpu", False, _one_cpu, _cpu, _ram),
    DeviceKind("cuda", "an NVIDIA card", "cuda", True, _cuda_cards(hip=False), _nvidia, _cuda_memory),
    DeviceKind("rocm", "a ROCm card", "cuda", True, _cuda_cards(hip=True), _amd, _cuda_memory),
    DeviceKind("mps", "an Apple GPU", "mps", False, _one_mps, _apple, _ram),
    DeviceKind("xpu", "an Intel GPU", "xpu", True, _xpu_cards, _intel, _xpu_memory),
)
"""The CPU first, as in every inventory. A ROCm card is a kind of its own although PyTorch calls it `cuda`."""
