"""Reads what surrounds the devices: processor, memory, operating system, installed versions. Imports no torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_llmdevice.hardware.inventory import Cpu, System
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current

DISTRIBUTIONS: Final = (
    "torch",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "flash_attn",
    "kernels",
    "triton",
)

VISIBILITY: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
)

_X86: Final = (
    *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
)
_ARM: Final = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16")
FEATURES: Final = frozenset(_X86 + _ARM)
"""Instruction sets worth a line in a report, as `/proc/cpuinfo` spells them."""

_TORCH_SPELLING: Final = {
    "fma3": "fma",
    "avx512_f": "avx512f",
    "avx512_bw": "avx512bw",
    "avx512_dq": "avx512dq",
    "avx512_vl": "avx512vl",
    "neon": "asimd",
    "fp16_arith": "asimdhp",
    "dot": "asimddp",
    "sve_bf16": "svebf16",
}
"""Where `torch.cpu.get_capabilities` differs from `/proc/cpuinfo`; read in PyTorch 2.13."""


def installed_versions() -> dict[str, str]:
    """`python`, and the version of each of `DISTRIBUTIONS` and of each library that quantizes, if it is installed.

    Nothing is imported.
    """
    libraries = (entry.library for entry in current().of(Quantization).values() if entry.library)
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys((*DISTRIBUTIONS, *libraries)):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def system() -> System:
    """The operating system and architecture."""
    return System(platform.platform(), platform.machine())


def visible() -> dict[str, str]:
    """The visibility variables that are set, as they are set."""
    return {name: os.environ[name] for name in VISIBILITY if name in os.environ}


def driver_version() -> str:
    """The version of the NVIDIA or AMD kernel driver, or `""` where the system does not tell."""
    nvidia = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _read("/proc/driver/nvidia/version"))
    return nvidia[1] if nvidia else _read("/sys/module/amdgpu/version").strip()


def memory() -> tuple[int, int]:
    """Bytes of RAM, total and available; a lower limit of the control group (a container) is the total."""
    import psutil

    found = psutil.virtual_memory()
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    total = min(found.total, int(limit)) if limit.isdecimal() else found.total
    return total, min(found.available, total)


def cpu(torch_capabilities: Mapping[str, object], torch_capability: str) -> Cpu:
    """The processor.

    Args:
        torch_capabilities: `torch.cpu.get_capabilities()`, or empty where PyTorch is older.
        torch_capability: `torch.backends.cpu.get_cpu_capability()`.
    """
    import psutil

    info = _read("/proc/cpuinfo")
    # x86 writes `flags`, ARM `Features`; other systems have no such file and PyTorch's answer is used.
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)
    if flags:
        found = set(flags[1].split())
    else:
        found = {_TORCH_SPELLING.get(name, name) for name, has in torch_capabilities.items() if has is True}
    return Cpu(
        name=_cpu_name(info) or str(torch_capabilities.get("cpu_name") or platform.processor()),
        logical=os.cpu_count() or 0,
        physical=psutil.cpu_count(logical=False) or 0,
        memory=memory()[0],
        features=tuple(sorted(found & FEATURES)),
        torch_capability=torch_capability,
    )


def _cpu_name(info: str) -> str:
    if named := re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE):
        return named[1].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.check_output(command, text=True, timeout=5).strip()  # noqa: S603 a fixed command
        except (OSError, subprocess.SubprocessError):
            return ""
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
