"""Defines `Inventory`, the devices and library versions of a machine, as frozen data that crosses processes as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.matrix.cell import spelled

if TYPE_CHECKING:
    from pydantic import TypeAdapter


LONGEST_ERROR: Final = 300
"""Characters of an error that an inventory keeps."""


@dataclass(frozen=True)
class SmokeTest:
    """Outcome of one real operation on one device.

    Attributes:
        ok: whether it ran and its values were right. A quantization is ok when it is for one dtype at least.
        error: the exception's type and text (`"RuntimeError: ..."`), or empty when it is ok.
        failures: of a quantization, input dtype -> error, for the dtypes that failed.
        unimplemented: those of them for which nobody has written the operation.
    """

    ok: bool
    error: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    unimplemented: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """One device that PyTorch reports.

    Attributes:
        device: PyTorch's spelling: `"cpu"`, `"cuda:0"`, `"mps"`, `"xpu:0"`.
        kind: `"cpu"`, `"cuda"`, `"rocm"` (a HIP build of PyTorch calls its cards `cuda`), `"mps"`, `"xpu"`.
        name: the vendor's name.
        memory: total bytes; RAM for the CPU and MPS.
        memory_free: bytes free when it was probed.
        capability: compute capability (`"9.0"`), the gfx architecture for ROCm, `""` for others.
        dtypes: dtype -> outcome of a matmul and a layer norm in it.
        quantization: quantization -> outcome of one quantized layer.
        lacks: of a simulated card, what it lacks; of real ones the outcomes tell.
    """

    device: str
    kind: str
    name: str = ""
    memory: int = 0
    memory_free: int = 0
    capability: str = ""
    dtypes: dict[str, SmokeTest] = field(default_factory=dict)
    quantization: dict[str, SmokeTest] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()

    @property
    def index(self) -> int:
        """The index in PyTorch's spelling; 0 where it has none."""
        return int(self.device.partition(":")[2] or 0)

    @property
    def spec(self) -> str:
        """The device as a matrix spells it: like `device`, but `rocm:0` for a ROCm card."""
        return spelled(self.kind, self.device)

    @property
    def usable(self) -> bool:
        """Whether one dtype at least passed."""
        return any(smoke_test.ok for smoke_test in self.dtypes.values())

    def passed(self, dtype: str) -> bool:
        """Whether the operations in `dtype` passed."""
        smoke_test = self.dtypes.get(dtype)
        return smoke_test is not None and smoke_test.ok


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        name: model name, empty where the system does not tell.
        logical: logical processors. `physical`: cores; 0 where the system does not tell.
        memory: bytes of RAM, or of the control group's limit where that is lower.
        features: instruction sets that matter for model code, in Linux' spelling (`"avx512_bf16"`), sorted.
        torch_capability: the instruction set PyTorch's kernels were dispatched to (`"AVX2"`).
    """

    name: str = ""
    logical: int = 0
    physical: int = 0
    memory: int = 0
    features: tuple[str, ...] = ()
    torch_capability: str = ""


@dataclass(frozen=True)
class System:
    """`platform.platform()` and `platform.machine()`."""

    platform: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Inventory:
    """What a probe found.

    Attributes:
        devices: what PyTorch reports, the CPU first. Empty after a failed probe.
        versions: `python`, the installed distributions, and `cuda`, `hip`, `cudnn`, `driver` where known.
        cpu: the processor.
        system: the operating system.
        visible: the visibility variables that were set around the probe (`CUDA_VISIBLE_DEVICES`, ...).
        failure: empty, or why nothing is known: the probe crashed, hung, or wrote something unreadable.
        timed_out: whether that is because the probe had too little time.
        simulated_devices: cards that `--llm-simulate` adds. The probe knows nothing of them; only simulated cells run
            there.
    """

    devices: tuple[Device, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    cpu: Cpu = field(default_factory=Cpu)
    system: System = field(default_factory=System)
    visible: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    timed_out: bool = False
    simulated_devices: tuple[Device, ...] = ()

    def of_kind(self, kind: str) -> tuple[Device, ...]:
        """The devices of `kind`, usable or not, in PyTorch's order."""
        return tuple(device for device in self.devices if device.kind == kind)

    def find(self, device: str, kind: str) -> Device | None:
        """The device that PyTorch spells `device`, if it is of `kind`."""
        return next((found for found in self.devices if (found.device, found.kind) == (device, kind)), None)

    def simulated_of_kind(self, kind: str) -> tuple[Device, ...]:
        """The simulated devices of `kind`."""
        return tuple(device for device in self.simulated_devices if device.kind == kind)

    def find_simulated(self, device: str, kind: str) -> Device | None:
        """The simulated device that PyTorch spells `device`, if it is of `kind`."""
        return next(
            (played for played in self.simulated_devices if (played.device, played.kind) == (device, kind)), None
        )

    def named(self, device: str) -> Device | None:
        """The device that PyTorch spells `device`, of whatever kind."""
        return next((found for found in self.devices if found.device == device), None)

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal inventory."""
        # Not pydantic: the probe's child has no other use for it, and its import would delay every run.
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Inventory:
        """Read `to_json`'s text.

        Raises:
            ValueError: the text is not an inventory (pydantic's `ValidationError` is one).
        """
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Inventory]:
    from pydantic import TypeAdapter

    return TypeAdapter(Inventory)
