"""Decides what becomes of a cell on a machine: it runs, it runs simulated, or it is skipped for one of five causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmdevice.hardware.inventory import Device, Inventory, SmokeTest
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix.axes import DeviceKind, Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current

State = Literal["run", "run simulated", "skip"]
Cause = Literal["", "not requested", "absent", "unusable", "unsupported", "not offered"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a cell.

    Attributes:
        state: `"run"`, `"run simulated"` or `"skip"`.
        cause: empty unless skipped. `"not requested"`: narrowed away; `"absent"`: the device is not here;
            `"unusable"`: it is here and its smoke test failed; `"unsupported"`: an installed library cannot do it;
            `"not offered"`: the code under test says that it does not do it.
        detail: why, in one sentence without the cause; empty unless skipped.
    """

    state: State
    cause: Cause = ""
    detail: str = ""

    @classmethod
    def skip(cls, cause: Cause, detail: str) -> Decision:
        """The decision not to run a cell."""
        return cls("skip", cause, detail)

    @property
    def reason(self) -> str:
        """`"cause: detail"`, for a person; empty unless skipped."""
        return f"{self.cause}: {self.detail}" if self.cause else ""

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
    if reason := _too_few(cell, inventory):
        return Decision.skip("absent", reason)
    if error := _quantization_error(device, cell):
        # A kernel that nobody wrote is no fault of the machine.
        unwritten = cell.dtype in device.quantization.get(cell.quantization, SmokeTest(False)).unimplemented
        cause: Cause = "unsupported" if unwritten else "unusable"
        return Decision.skip(cause, f"{_name(device)} failed the {cell.quantization} probe: {error}")
    return Decision("run simulated" if cell.simulated else "run")


def _absence(cell: Cell, inventory: Inventory) -> str:
    other = inventory.named(cell.device)
    if other is not None:
        identity = ", ".join(part for part in (other.capability, other.name) if part)
        kind = current().of(DeviceKind).get(other.kind)
        vendor = kind.title if kind is not None else f"a device of kind {other.kind}"
        named = f" ({identity})" if identity else ""
        return f"{cell.device} here is {vendor}{named}: its cells are spelled {other.spec}"
    here = ", ".join(device.spec for device in inventory.devices) or "no device"
    # A card may be hidden on purpose; then this is the line that explains it.
    visible = "".join(f"; {name}={value}" for name, value in inventory.visible.items())
    played = ", ".join(device.spec for device in inventory.simulated_devices)
    simulated_devices = f"; simulated: {played}" if played else ""
    return f"no {cell.spec} here (this machine has {here}{visible}{simulated_devices})"


def _too_few(cell: Cell, inventory: Inventory) -> str | None:
    """Why there are not as many cards as the strategy of `cell` needs, or None."""
    strategy = current().of(Strategy).get(cell.strategy)
    kind = current().of(DeviceKind).get(cell.kind)
    of_its_own = kind is not None and kind.indexed
    needed = 1 if strategy is None else max(strategy.cards, strategy.ranks if of_its_own else 1)
    if needed == 1:
        return None
    wanted = f"strategy {cell.strategy} needs {_NUMBERS.get(needed, needed)} {cell.kind} cards"
    if cell.simulated:
        cards, which = inventory.simulated_of_kind(cell.kind), ", simulated"
    else:
        cards = tuple(card for card in inventory.of_kind(cell.kind) if card.passed(cell.dtype))
        which = f" that pass the {cell.dtype} probe, here"
    return None if len(cards) >= needed else f"{wanted}{which}: {', '.join(card.spec for card in cards)}"


_NUMBERS: Final = {2: "two", 3: "three", 4: "four"}


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
