"""Runs the probe in its child process and writes the inventory: `python -m pytest_llmdevice.hardware.probe_worker`.

A process of its own, because asking PyTorch about a card starts a CUDA context, and because a broken driver
can kill or hang the process that asks.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import first_line
from pytest_llmdevice.hardware import host
from pytest_llmdevice.hardware.inventory import LONGEST_ERROR, Device, Inventory
from pytest_llmdevice.hardware.probe import MARKER, STAGE
from pytest_llmdevice.matrix.axes import DeviceKind, Quantization
from pytest_llmdevice.matrix.registry import current

if TYPE_CHECKING:
    import torch


def main() -> None:
    """Write `MARKER` and the inventory to the standard output this process was started with, and end."""
    # Libraries write to stdout, some from C: point it at stderr and keep the real one for the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    if len(sys.argv) > 1:
        # The parent enforces the limit; this is for a parent that was itself killed.
        faulthandler.dump_traceback_later(float(sys.argv[1]) + 5, exit=True)
    if len(sys.argv) > 2:
        current().load_sources(json.loads(sys.argv[2]))
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
        failure = f"torch cannot be imported: {first_line(error, LONGEST_ERROR)}"
        return Inventory(versions=versions, system=system, visible=visible, failure=failure)
    torch.set_num_threads(1)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)
    cpu = host.cpu(capabilities(), torch.backends.cpu.get_cpu_capability())
    versions |= {"torch": torch.__version__} | _runtime_versions()
    unavailable = {library: why for library in _libraries() if (why := _unavailable(library, versions))}
    devices = []
    for kind in current().of(DeviceKind).values():
        for name in kind.devices(kind.count()):
            announce(name)
            devices.append(_probed(torch.device(name), kind, unavailable))
    return Inventory(tuple(devices), versions, cpu, system, visible)


def announce(stage: str) -> None:
    """Tell the parent what is about to be tried, in case it is the last thing this process does."""
    sys.stderr.write(f"{STAGE}{stage}\n")
    sys.stderr.flush()


def _libraries() -> dict[str, str]:
    """Library of a quantization -> what to install for it."""
    entries = current().of(Quantization).values()
    return {entry.library: entry.install for entry in entries if entry.library}


def _module(library: str) -> str:
    """What is imported of `library`."""
    entries = current().of(Quantization).values()
    return next(
        (entry.module for entry in entries if entry.library == library and entry.module), library.replace("-", "_")
    )


def _unavailable(library: str, versions: Mapping[str, str]) -> str:
    """Why `library` cannot be used at all, empty when it can."""
    if library not in versions:
        return f"{library} is not installed; install {_libraries()[library]}"
    announce(f"import {library}")
    try:
        _import(_module(library))
    except Exception as error:  # noqa: BLE001 a broken installation raises anything
        return f"{library} cannot be imported: {first_line(error, LONGEST_ERROR)}"
    return ""


def _probed(device: torch.device, kind: DeviceKind, unavailable: Mapping[str, str]) -> Device:
    from pytest_llmdevice.hardware.smoke_tests import DeviceSmokeTests

    smoke_tests = DeviceSmokeTests(device, announce)
    properties: dict[str, Any] = {"name": ""}
    # Guarded too, so that a card whose properties cannot be read is still tried.
    for what, read in (("identity", _read_identity), ("memory", _read_memory)):
        if error := smoke_tests.guarded(what, partial(read, device, kind, properties)):
            properties["name"] = f"{properties['name']} ({what} unreadable: {error.text})".lstrip()
    dtypes = smoke_tests.dtypes()
    passed = [name for name, smoke_test in dtypes.items() if smoke_test.ok]
    return Device(
        device=str(device),
        kind=kind.name,
        dtypes=dtypes,
        quantization=smoke_tests.quantization(passed, unavailable),
        **properties,
    )


def _read_identity(device: torch.device, kind: DeviceKind, properties: dict[str, Any]) -> None:
    properties |= kind.identify(str(device))


def _read_memory(device: torch.device, kind: DeviceKind, properties: dict[str, Any]) -> None:
    total, free = kind.memory(str(device))
    properties |= {"memory": total, "memory_free": free}


def _runtime_versions() -> dict[str, str]:
    import torch

    found = {"cuda": torch.version.cuda, "hip": torch.version.hip, "driver": host.driver_version()}
    cudnn: Any = torch.backends.cudnn
    if cudnn.is_available():
        found["cudnn"] = str(cudnn.version())
    return {name: version for name, version in found.items() if version}


def _import(module: str) -> None:
    import torch

    compile_function = torch.compile

    def uncompiled(model: Any = None, **_: Any) -> Any:
        return model if model is not None else lambda function: function

    # bitsandbytes decorates its fallback kernels with torch.compile at import. That loads the compiler (1.4 of
    # the probe's 4.3 s, measured) and would compile in the first smoke test. Where compiling fails bitsandbytes runs
    # the plain function, and that is what is tried here.
    torch.compile = uncompiled
    try:
        importlib.import_module(module)
    finally:
        torch.compile = compile_function


if __name__ == "__main__":
    main()
