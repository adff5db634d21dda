"""Finds the devices that a matrix or `--llm-require` names in an inventory, and describes what is here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_llmdevice.hardware.inventory import Device, Inventory, SmokeTest
from pytest_llmdevice.matrix.axes import DeviceKind
from pytest_llmdevice.matrix.devices import parse_device
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.text import plural


def expand_devices(specs: Sequence[str], inventory: Inventory | None) -> tuple[tuple[str, str], ...]:
    """The (kind, device) pairs that `specs` name, in their order, each once.

    `"cuda:*"` is every NVIDIA card of the inventory, simulated ones too, and always `cuda:0`, so that a card that is
    missing is reported and not left out; `"rocm:1"` is `("rocm", "cuda:1")`, PyTorch's spelling; `"cuda"` is
    `"cuda:0"`.

    Args:
        specs: `"cpu"`, `"mps"`, or a kind of card with an index or `*`.
        inventory: what is here; None when no probe ran.

    Raises:
        ConfigurationError: a name that is none of these.
    """
    pairs = (pair for spec in specs for pair in _expanded(spec, inventory))
    return tuple(dict.fromkeys(pairs))


def required_missing(specs: Iterable[str], inventory: Inventory) -> str | None:
    """None when every device of `specs` is here and usable, or a sentence: what is missing and what is here.

    A simulated device is not here.

    Args:
        specs: as for `expand_devices`; a kind without an index is met by any usable card of that kind.
        inventory: what is here.

    Raises:
        ConfigurationError: a name that is no device.
    """
    missing = [spec for spec in specs if not _met(spec, inventory)]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    played = ", ".join(device.spec for device in inventory.simulated_devices)
    note = f" ({played} simulated, which does not count)" if played else ""
    return f"required {' and '.join(missing)} {verb} missing: {whats_here(inventory)}{note}"


def whats_here(inventory: Inventory) -> str:
    """`"this machine has cpu (AMD EPYC), cuda:0 (NVIDIA T4, unusable: RuntimeError: ...)"`."""
    if inventory.failure:
        return f"the hardware probe failed: {inventory.failure}"
    visible = "".join(f"; {name}={value}" for name, value in inventory.visible.items())
    return f"this machine has {', '.join(map(_with_state, inventory.devices)) or 'no device'}{visible}"


def _expanded(spec: str, inventory: Inventory | None) -> Iterator[tuple[str, str]]:
    named = parse_device(spec)
    kind = current().of(DeviceKind)[named.kind]
    if not kind.indexed:
        yield kind.name, kind.torch_type
        return
    yield kind.name, f"{kind.torch_type}:{named.index or 0}"
    if named.every and inventory is not None:
        devices = (*inventory.of_kind(kind.name), *inventory.simulated_of_kind(kind.name))
        yield from ((kind.name, device.device) for device in devices)


def _met(spec: str, inventory: Inventory) -> bool:
    named = parse_device(spec)
    return any(device.usable and named.index in {None, device.index} for device in inventory.of_kind(named.kind))


def _passed(smoke_tests: dict[str, SmokeTest]) -> str:
    return " ".join(name for name, smoke_test in smoke_tests.items() if smoke_test.ok)


def _with_state(device: Device) -> str:
    state = [device.name] if device.name else []
    if not device.usable:
        errors = [smoke_test.error for smoke_test in device.dtypes.values() if smoke_test.error]
        state.append(f"unusable: {errors[0]}" if errors else "unusable")
    return f"{device.spec} ({', '.join(state)})" if state else device.spec


def describe(inventory: Inventory) -> list[str]:
    """One line per device: `"cpu: AMD EPYC, 2 cores, 23.5 GiB, float32 bfloat16 float16, int8 nf4 fp4"`."""
    if inventory.failure:
        return [f"hardware probe failed: {inventory.failure}"]
    return [_line(device, inventory) for device in inventory.devices]


def _line(device: Device, inventory: Inventory) -> str:
    parts = [device.name or "unknown model"]
    if device.kind == "cpu":
        cores = inventory.cpu.physical or inventory.cpu.logical
        parts.append(plural(cores, "core"))
    elif device.capability:
        parts.append(f"{'' if device.kind == 'rocm' else 'compute capability '}{device.capability}")
    parts.append(f"{device.memory / 2**30:.3g} GiB")
    if not device.usable:
        errors = [smoke_test.error for smoke_test in device.dtypes.values() if smoke_test.error]
        return f"{device.spec}: {', '.join(parts)}, unusable" + (f": {errors[0]}" if errors else "")
    parts.append(_passed(device.dtypes))
    parts.append(_passed(device.quantization) or "no quantization")
    return f"{device.spec}: {', '.join(parts)}"
