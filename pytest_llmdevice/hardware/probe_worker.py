"""The probe's child: `python -m pytest_llmdevice.hardware.probe_worker [LIMIT_SECONDS]` writes an inventory.

A process of its own, because asking PyTorch about a card starts a CUDA context, and because a broken driver
can kill or hang the process that asks.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.hardware import host
from pytest_llmdevice.hardware.inventory import Device, Inventory, error_text
from pytest_llmdevice.hardware.probe import MARKER, STAGE

if TYPE_CHECKING:
    import torch

NOT_INSTALLED = "bitsandbytes is not installed; install pytest-llmdevice[bitsandbytes]"


def main() -> None:
    """Write `MARKER` and the inventory to the standard output this process was started with, and end."""
    # Libraries write to stdout, some from C: point it at stderr and keep the real one for the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    if len(sys.argv) > 1:
        # The parent enforces the limit; this is for a parent that was itself killed.
        faulthandler.dump_traceback_later(float(sys.argv[1]) + 5, exit=True)
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        stream.write(f"\n{MARKER}\n{take().to_json()}\n")
    sys.stderr.flush()
    # Some drivers crash while they unload; by now the answer is out.
    os._exit(0)


def take() -> Inventory:
    """The inventory of this machine, by real operations in this process."""
    versions = host.installed_versions()
    system, visible = host.system(), host.visible()
    announce("import torch")
    try:
        import torch
    except Exception as error:  # noqa: BLE001 a broken installation raises anything
        failure = f"torch cannot be imported: {error_text(error)}"
        return Inventory(versions=versions, system=system, visible=visible, failure=failure)
    torch.set_num_threads(1)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)
    cpu = host.cpu(capabilities(), torch.backends.cpu.get_cpu_capability())
    versions |= {"torch": torch.__version__} | _runtime_versions()
    unavailable = "" if "bitsandbytes" in versions else NOT_INSTALLED
    if not unavailable:
        announce("import bitsandbytes")
        try:
            _import_bitsandbytes()
        except Exception as error:  # noqa: BLE001 likewise
            unavailable = f"bitsandbytes cannot be imported: {error_text(error)}"
    devices = []
    for name, kind in _present():
        announce(name)
        devices.append(_probed(torch.device(name), kind, cpu.name, unavailable))
    return Inventory(tuple(devices), versions, cpu, system, visible)


def announce(stage: str) -> None:
    """Tell the parent what is about to be tried, in case it is the last thing this process does."""
    sys.stderr.write(f"{STAGE}{stage}\n")
    sys.stderr.flush()


def _present() -> Iterator[tuple[str, str]]:
    """(PyTorch's spelling, kind) of each device that PyTorch reports as available, the CPU first."""
    import torch

    yield "cpu", "cpu"
    if torch.cuda.is_available():
        kind = "rocm" if torch.version.hip else "cuda"
        yield from ((f"cuda:{index}", kind) for index in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        yield "mps", "mps"
    if torch.xpu.is_available():
        yield from ((f"xpu:{index}", "xpu") for index in range(torch.xpu.device_count()))


def _probed(device: torch.device, kind: str, cpu_name: str, unavailable: str) -> Device:
    from pytest_llmdevice.hardware.smoke_tests import DeviceSmokeTests

    smoke_tests = DeviceSmokeTests(device, announce)
    properties: dict[str, Any] = {"name": cpu_name if kind == "cpu" else ""}
    # Guarded too, so that a card whose properties cannot be read is still tried.
    for what, read in (("identity", _read_identity), ("memory", _read_memory)):
        if error := smoke_tests.guarded(what, partial(read, device, kind, properties)):
            properties["name"] = f"{properties['name']} ({what} unreadable: {error})".lstrip()
    dtypes = smoke_tests.dtypes()
    passed = [name for name, smoke_test in dtypes.items() if smoke_test.ok]
    return Device(
        device=str(device),
        kind=kind,
        dtypes=dtypes,
        quantization=smoke_tests.quantization(passed, unavailable),
        **properties,
    )


def _read_identity(device: torch.device, kind: str, properties: dict[str, Any]) -> None:
    import torch

    if kind in ("cuda", "rocm"):
        found = torch.cuda.get_device_properties(device)
        properties["name"] = found.name
        # `gfx90a:sramecc+:xnack-`: what follows the colon are settings, not the architecture.
        architecture = str(getattr(found, "gcnArchName", "")).partition(":")[0]
        properties["capability"] = architecture if kind == "rocm" else f"{found.major}.{found.minor}"
    elif kind == "xpu":
        properties["name"] = torch.xpu.get_device_properties(device).name
    elif kind == "mps":
        properties["name"] = "Apple GPU"


def _read_memory(device: torch.device, kind: str, properties: dict[str, Any]) -> None:
    import torch

    if kind in ("cuda", "rocm"):
        free, total = torch.cuda.mem_get_info(device)
    elif kind == "xpu":
        total = torch.xpu.get_device_properties(device).total_memory
        free = total - torch.xpu.memory_reserved(device)
    else:
        # MPS shares the RAM of the machine.
        total, free = host.memory()
    properties |= {"memory": int(total), "memory_free": int(free)}


def _runtime_versions() -> dict[str, str]:
    import torch

    found = {"cuda": torch.version.cuda, "hip": torch.version.hip, "driver": host.driver_version()}
    cudnn: Any = torch.backends.cudnn
    if cudnn.is_available():
        found["cudnn"] = str(cudnn.version())
    return {name: version for name, version in found.items() if version}


def _import_bitsandbytes() -> None:
    import torch

    compile_function = torch.compile

    def uncompiled(model: Any = None, **_: Any) -> Any:
        return model if model is not None else lambda function: function

    # bitsandbytes decorates its fallback kernels with torch.compile at import. That loads the compiler (1.4 of
    # the probe's 4.3 s, measured) and would compile in the first trial. Where compiling fails bitsandbytes runs
    # the plain function, and that is what is tried here.
    torch.compile = uncompiled
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.compile = compile_function


if __name__ == "__main__":
    main()
