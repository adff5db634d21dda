"""The verdict on a cell: it runs here, it runs simulated, or it is skipped for one of four causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_llmdevice.hardware.inventory import Device, Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix.cell import Cell

State = Literal["run", "run simulated", "skip"]
Cause = Literal["", "not requested", "absent", "unusable", "unsupported"]

_VENDORS = {"cuda": "an NVIDIA card", "rocm": "a ROCm card"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a cell.

    Attributes:
        state: `"run"`, `"run simulated"` or `"skip"`.
        cause: empty unless skipped. `"not requested"`: narrowed away; `"absent"`: the device is not here;
            `"unusable"`: it is here and its probe failed; `"unsupported"`: an installed library cannot do it.
        reason: one sentence that starts with the cause, empty unless skipped.
    """

    state: State
    cause: Cause = ""
    reason: str = ""

    @classmethod
    def skip(cls, cause: Cause, why: str) -> Decision:
        """A skip whose reason is `"cause: why"`."""
        return cls("skip", cause, f"{cause}: {why}")

    @property
    def runs(self) -> bool:
        """Whether the cell runs, on hardware or simulated."""
        return self.state != "skip"


def decide(cell: Cell, inventory: Inventory) -> Decision:
    """What becomes of `cell` on a machine with `inventory`.

    A simulated cell is held to the rules of the libraries and to what the CPU can do, for the CPU computes
    it; the cards that it is placed on are the inventory's simulated ones.
    """
    if inventory.failure:
        return Decision.skip("unusable", f"the hardware probe failed: {inventory.failure}")
    device = inventory.named("cpu") if cell.simulated else inventory.find(cell.device, cell.kind)
    if device is None or (cell.simulated and inventory.find_simulated(cell.device, cell.kind) is None):
        return Decision.skip("absent", _absence(cell, inventory))
    if error := _dtype_error(device, cell.dtype):
        return Decision.skip("unusable", f"{_name(device)} failed the {cell.dtype} probe: {error}")
    if reason := unsupported(cell, inventory):
        return Decision.skip("unsupported", reason)
    if cell.strategy == "split" and (reason := _too_few(cell, inventory)):
        return Decision.skip("absent", reason)
    if error := _quantization_error(device, cell):
        # A kernel that nobody wrote is no fault of the machine.
        cause: Cause = "unsupported" if error.startswith("NotImplementedError") else "unusable"
        return Decision.skip(cause, f"{_name(device)} failed the {cell.quantization} probe: {error}")
    return Decision("run simulated" if cell.simulated else "run")


def _absence(cell: Cell, inventory: Inventory) -> str:
    other = inventory.named(cell.device)
    if other is not None:
        identity = ", ".join(part for part in (other.capability, other.name) if part)
        vendor = _VENDORS.get(other.kind, f"a device of kind {other.kind}")
        named = f" ({identity})" if identity else ""
        return f"{cell.device} here is {vendor}{named}: its cells are spelled {other.spec}"
    here = ", ".join(device.spec for device in inventory.devices) or "no device"
    # A card may be hidden on purpose; then this is the line that explains it.
    visible = "".join(f"; {name}={value}" for name, value in inventory.visible.items())
    played = ", ".join(device.spec for device in inventory.simulated_devices)
    simulated_devices = f"; simulated: {played}" if played else ""
    return f"no {cell.spec} here (this machine has {here}{visible}{simulated_devices})"


def _too_few(cell: Cell, inventory: Inventory) -> str | None:
    if cell.simulated:
        played = inventory.simulated_of_kind(cell.kind)
        return None if len(played) >= 2 else f"strategy split needs two {cell.kind} cards, simulated: {played[0].spec}"
    cards = [device.spec for device in inventory.of_kind(cell.kind) if device.passed(cell.dtype)]
    if len(cards) >= 2:
        return None
    return f"strategy split needs two {cell.kind} cards that pass the {cell.dtype} probe, here: {cards[0]}"


def _dtype_error(device: Device, dtype: str) -> str:
    smoke_test = device.dtypes.get(dtype)
    if smoke_test is None:
        return "it was not probed"
    return "" if smoke_test.ok else smoke_test.error


def _quantization_error(device: Device, cell: Cell) -> str:
    if cell.quantization == "none":
        return ""
    smoke_test = device.quantization.get(cell.quantization)
    if smoke_test is None:
        return "it was not probed"
    return smoke_test.failures.get(cell.dtype, "") if smoke_test.ok else smoke_test.error


def _name(device: Device) -> str:
    return f"{device.spec} {device.name}".rstrip()
