"""Builds the properties objects of simulated cards, as `torch.cuda.get_device_properties` returns them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.profiles import Profile
from pytest_llmdevice.simulation.visibility import card_uuid

_THREADS = {(7, 5): 1024} | dict.fromkeys(((8, 6), (8, 7), (8, 9), (12, 0), (12, 1)), 1536)
"""Compute capability -> threads of a multiprocessor, where they are not 2048 (the CUDA C++ programming guide)."""


class CardProperties:
    """The properties of a card, under PyTorch's names.

    Values that influence nothing are from the card's data sheet, or typical ones.
    """

    def __init__(self, header: str, values: dict[str, Any], shown: tuple[str, ...]) -> None:
        self.__dict__.update(values)
        self._header = header
        self._shown = shown

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={self._format(name)}" for name in self._shown)
        return f"{self._header}({parts}) (simulated)"

    def _format(self, name: str) -> str:
        value = getattr(self, name)
        if name == "total_memory":
            return f"{value // 2**20}MB"
        if name == "L2_cache_size":
            return f"{value // 2**20}MB"
        return f"'{value}'" if isinstance(value, str) else str(value)

    def __reduce__(self) -> Any:
        values = {name: value for name, value in vars(self).items() if name not in {"_header", "_shown"}}
        return CardProperties, (self._header, values, self._shown)


def cuda_properties(profile: Profile, index: int, uuid: UUID) -> CardProperties:
    """`_CudaDeviceProperties` of an NVIDIA or AMD card at `index` of its machine."""
    values = {
        "name": profile.card,
        "major": profile.capability[0],
        "minor": profile.capability[1],
        "total_memory": profile.memory,
        "multi_processor_count": profile.processors,
        "is_integrated": 0,
        "is_multi_gpu_board": 0,
        "max_threads_per_multi_processor": _THREADS.get(profile.capability, 2048),
        "max_threads_per_block": 1024,
        # A PyTorch that is not built for AMD has the card's name here.
        "gcnArchName": profile.architecture or profile.card,
        "warp_size": profile.warp,
        "regs_per_multiprocessor": 65536,
        "shared_memory_per_block": 49152,
        "shared_memory_per_block_optin": 65536 if profile.capability < (8, 0) else 232448,
        "shared_memory_per_multiprocessor": 65536 if profile.capability < (8, 0) else 233472,
        "L2_cache_size": 4 * 2**20 if profile.capability < (8, 0) else 50 * 2**20,
        "clock_rate": 1980000,
        "memory_clock_rate": 2619000,
        "memory_bus_width": 256 if profile.capability < (8, 0) else 5120,
        "pci_bus_id": index + 1,
        "pci_device_id": 0,
        "pci_domain_id": 0,
        "uuid": uuid,
    }
    shown = ("name", "major", "minor", *(("gcnArchName",) if profile.architecture else ()))
    shown += ("total_memory", "multi_processor_count", "uuid", "pci_bus_id", "pci_device_id", "pci_domain_id")
    return CardProperties("_CudaDeviceProperties", values, (*shown, "L2_cache_size"))


def xpu_properties(profile: Profile, index: int, uuid: UUID) -> CardProperties:
    """`_XpuDeviceProperties` of an Intel card."""
    values = {
        "name": profile.card,
        "platform_name": "Intel(R) oneAPI Unified Runtime over Level-Zero",
        "vendor": "Intel(R) Corporation",
        "type": "gpu",
        "device_id": 0x0BD5,
        "driver_version": "1.6.33578",
        "version": "12.60.7",
        "total_memory": profile.memory,
        "max_compute_units": profile.processors,
        "gpu_eu_count": profile.processors,
        "gpu_subslice_count": profile.processors // 8,
        "max_work_group_size": 1024,
        "max_num_sub_groups": 64,
        "memory_clock_rate": 3200,
        "memory_bus_width": 64,
        "sub_group_sizes": [16, 32],
        "local_mem_size": 131072,
        "last_level_cache_size": 204 * 2**20,
        "has_fp16": True,
        "has_fp64": "float64" not in profile.lacks,
        "has_atomic64": True,
        "has_bfloat16_conversions": True,
        "has_subgroup_matrix_multiply_accumulate": True,
        "has_subgroup_matrix_multiply_accumulate_tensor_float32": True,
        "has_subgroup_2d_block_io": True,
        "is_integrated_gpu": False,
        "architecture": 13136561920,
        "uuid": uuid,
    }
    hidden = {"vendor", "version", "uuid", "architecture", "memory_clock_rate", "memory_bus_width", "local_mem_size"}
    return CardProperties("_XpuDeviceProperties", values, tuple(name for name in values if name not in hidden))


class Properties:
    """The properties of the cards that a process sees, by their indices there; made when one is first asked for."""

    def __init__(self, machine: Machine, kind: Callable[[Profile, int, UUID], CardProperties]) -> None:
        self._machine, self._kind = machine, kind
        self._made: dict[int, CardProperties] = {}

    def of(self, index: int) -> CardProperties:
        """The properties of a card.

        Raises:
            RuntimeError: there is no such card.
        """
        machine = self._machine
        machine.check_index(index)
        if index not in self._made:
            number = machine.numbers[index]
            self._made[index] = self._kind(machine.cards[index], number, card_uuid(machine.profile, number))
        return self._made[index]
