"""Defines what a value of an axis is: kinds of device, strategies and quantizations, as a registry holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from pytest_llmdevice.matrix.cell import Cell

EVERY: Final = "*"
"""The pattern of all modules that are packed where nothing else is said."""


class Machine(Protocol):
    """What a rule may ask about the machine: `hardware.inventory.Inventory` is one."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Installed distributions, `python`, `cuda` and the like, with their versions."""

    def find(self, device: str, kind: str) -> Any:
        """The device that PyTorch spells `device`, if it is of `kind`; None where it is not here."""

    def find_simulated(self, device: str, kind: str) -> Any:
        """The simulated device of that spelling, if it is of `kind`; None where there is none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that cannot be, whatever the hardware.

    Attributes:
        name: how reports and tests call it.
        source: the code or documentation that says so, with the versions it was read in.
        reason: why a cell cannot run with a machine's versions, or None when the rule is not about it.
    """

    name: str
    source: str
    reason: Callable[[Cell, Machine], str | None]


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """A kind of device, as a matrix spells it.

    Attributes:
        name: `"cuda"`.
        title: what one device is called in a sentence: `"an NVIDIA card"`.
        torch_type: PyTorch's type of it; `"cuda"` for ROCm cards too.
        indexed: whether a machine can hold several, so that a device is spelled with an index.
        count: how many there are here, asked in the probe's process. Imports torch.
        identify: name and `capability` of the device that PyTorch spells like the argument, asked there too.
        memory: (total, free) bytes of that device.
    """

    table: ClassVar[str] = "device kind"

    name: str
    title: str
    torch_type: str
    indexed: bool
    count: Callable[[], int]
    identify: Callable[[str], Mapping[str, str]]
    memory: Callable[[str], tuple[int, int]]

    def devices(self, count: int) -> tuple[str, ...]:
        """The first `count` devices in PyTorch's spelling: `("cuda:0", "cuda:1")`; `("mps",)`."""
        if self.indexed:
            return tuple(f"{self.torch_type}:{index}" for index in range(count))
        return (self.torch_type,) if count else ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way in which weights reach their devices.

    Attributes:
        name: `"device-map"`.
        description: what it does, a phrase for the reference page.
        load: loads the checkpoint in a local folder as a cell asks, and returns the model in eval mode.
        cards: how many cards of the cell's kind it needs.
        automatic: whether accelerate chooses the devices, so that the map it left says where tensors belong.
        ranks: how many processes load the model together, each on a card of its own where there are cards, as under
            `torchrun`; 1 for what one process does.
        shards: whether each of them has a part of the weights.
        offload: where a part of the weights waits for its turn: `"memory"` or `"disk"`; empty where none does.
        rules: what cannot be loaded in this way.
    """

    table: ClassVar[str] = "strategy"

    name: str
    description: str
    load: Callable[[str, Cell], Any]
    cards: int = 1
    automatic: bool = False
    ranks: int = 1
    shards: bool = False
    offload: str = ""
    rules: tuple[Rule, ...] = ()


class Problem(NamedTuple):
    """What an entry finds wrong with a layer of its own; a check makes a finding of it.

    Attributes:
        where: the module, or what is beside its weight.
        expected: what should be.
        actual: what is.
        hint: the name of the hint that says what usually causes it, empty for none.
    """

    where: str
    expected: str
    actual: str
    hint: str = ""


def _unsaid(*_: Any) -> None:
    """Leaves it to what can be seen of any tensor."""


def _nothing_wrong(*_: Any) -> tuple[Problem, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Quantization:
    """A way in which weights are stored with fewer bits.

    It is known by `layer_class`, `parameter_class` or both. Which weights it packs: those of linear layers, but for the
    head, what is tied, and what the class keeps in float32.

    Attributes:
        name: `"nf4"`.
        description: what it does, a phrase for the reference page.
        library: the distribution that does it; empty for dense weights, and where no library is needed.
        install: what to install where that is missing, as pip takes it.
        config: the `quantization_config` of a cell for `from_pretrained`; None for dense weights.
        settings: what a configuration of this quantization says, by attribute.
        layer_class: the name of the module class that stands in the place of `nn.Linear`; empty where that stays.
        parameter_class: the name of the class of its packed weight; empty for an ordinary tensor.
        storage_dtype: the dtype of the packed weight, without `torch.`.
        smoke_test: makes one layer on a device, with inputs of a dtype (its name), in the probe's process.
            Returns (result, exact result, largest relative error); raises where the device cannot do it.
        packing_error: the largest relative error, ||unpacked - plain|| / ||plain||, of a weight.
        logits_error: the relative error of the logits that it adds to the dtype's.
        batch_error: the same between two runs of one model, of which only the batch differs.
        rules: what cannot be loaded with it.
        dequantize: the values of a packed weight, in the layout of `nn.Linear`, from its module and the tensor under
            its name, None where there is none; None for "the tensor's or the module's own `dequantize` does".
        packed: whether a tensor of `parameter_class` was packed already; None for "where it is in few bits".
        problems: what is wrong with a packed layer, from its name, the module and the cell.
        configured: what a `quantization_config` that was found on a model, its attributes by name, says otherwise than
            the cell; nothing where another library wrote it. It is asked whatever the cell's quantization is.
        embeddings: the names of the classes of its packed embeddings, which are never asked for.
        module: what is imported of `library`, where that is not its name.
        layers: the classes of the layers that it packs.
        dtypes: the dtypes of cells that it can have; empty for all.
        kinds: the kinds of device that it can be on; empty for all.
        unsaved: why such a model cannot be saved; empty where it can.
        subclasses: whether layers of classes that derive from those in `layers` are packed too.
        keeps_float32: whether layers that the class of the model keeps in float32 stay dense.
        no_experts: why it cannot pack experts that a module keeps as one tensor of three dimensions, behind an "and".
            Models that have such are then unsupported. Empty where it can, or where the check is to say what is dense.
        pack: packs the one layer of a model, an `nn.Sequential`, given the device and the name of the dtype. What the
            packed tensor then says of itself, groups and the like, those of a loaded model have to say too. It does
            nothing where that is not compared.
        modules: pairs of a pattern of modules and the name of the quantization that they have; the first that fits
            counts. Empty where all have this one. `"*"` is for all that is packed where nothing else is said.
        needs: what a card must have for it: `"bfloat16"`, `"float8"`, `"float64"`; empty where any will do.
    """

    table: ClassVar[str] = "quantization"

    name: str
    description: str
    library: str
    install: str
    config: Callable[[Cell], Any]
    settings: Mapping[str, Any]
    layer_class: str
    parameter_class: str
    storage_dtype: str
    smoke_test: Callable[[Any, str], Any]
    packing_error: float
    logits_error: float
    batch_error: float = 0.0
    rules: tuple[Rule, ...] = ()
    dequantize: Callable[[Any, Any], Any] = _unsaid
    packed: Callable[[Any], bool | None] = _unsaid
    problems: Callable[[str, Any, Cell], Iterable[Problem]] = _nothing_wrong
    configured: Callable[[Mapping[str, Any], Cell], Iterable[Problem]] = _nothing_wrong
    embeddings: tuple[str, ...] = ()
    module: str = ""
    layers: tuple[str, ...] = ("Linear",)
    dtypes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    unsaved: str = ""
    subclasses: bool = False
    keeps_float32: bool = True
    no_experts: str = ""
    pack: Callable[[Any, Any, str], object] = _unsaid
    modules: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def packs(self) -> bool:
        """Whether it packs weights at all, and is not the one of dense weights."""
        return bool(self.layer_class or self.parameter_class or self.modules)

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the quantizations that modules have: this one, or those that are mixed."""
        if not self.modules:
            return (self.name,)
        return tuple(dict.fromkeys(name for _, name in self.modules if name != "none"))

    def of_module(self, module: str, *, usual: bool) -> str:
        """The name of the quantization that `module` has.

        Args:
            module: its name in the architecture.
            usual: whether it is packed where nothing else is said; the head and embeddings are not.
        """
        if not self.modules:
            return self.name if usual and self.packs else "none"
        return next(
            (name for pattern, name in self.modules if fits(pattern, module) and (usual or pattern != EVERY)), "none"
        )

    @property
    def form(self) -> str:
        """What a packed layer looks like, in words: `Linear4bit with uint8`, `Linear with Int8Tensor of int8`."""
        if self.layer_class:
            return f"{self.layer_class} with {self.storage_dtype}"
        return f"{self.layers[0]} with {self.parameter_class} of {self.storage_dtype}"


def fits(pattern: str, module: str) -> bool:
    """Whether `pattern` is the name of `module`, or the end of it."""
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def below(machine: Machine, package: str, version: str) -> bool:
    """Whether `package` is installed and older than `version`."""
    from packaging.version import Version

    installed = machine.versions.get(package)
    return installed is not None and Version(installed) < Version(version)


def too_old(machine: Machine, package: str, version: str, purpose: str) -> str:
    """The sentence for a `package` that is older than `version`."""
    return f"{package} {machine.versions[package]} is too old {purpose}; {version} or later is needed"
