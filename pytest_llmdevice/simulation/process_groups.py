"""Knows the process groups of simulated cards, and what NCCL refuses: tensors that are on no card, or on a wrong one.

NCCL makes a communicator of the cards of all ranks at the first collective, and compares them then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import Tags, unintercepted

FUNCTIONAL: Final = (
    "all_gather_into_tensor",
    "all_gather_into_tensor_coalesced",
    "all_gather_into_tensor_out",
    "all_reduce",
    "all_reduce_",
    "all_reduce_coalesced",
    "all_reduce_coalesced_",
    "all_to_all_single",
    "broadcast",
    "broadcast_",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_coalesced",
    "reduce_scatter_tensor_out",
)
"""The operators of `torch.ops._c10d_functional` that take tensors and, as their last argument, the name of a group."""

CONTIGUOUS: Final = {
    **dict.fromkeys(("allreduce", "broadcast", "reduce", "reduce_scatter"), (0,)),
    **dict.fromkeys(("allgather", "gather"), (1,)),
    **dict.fromkeys(("_allgather_base", "all_gather_single", "alltoall", "alltoall_base", "all_to_all_single"), (0, 1)),
}
"""Method of a group -> which of its arguments NCCL takes contiguous tensors in; the other methods take any, or copy."""

DENSE: Final = {
    "allreduce_coalesced": "Tensors must be non-overlapping and dense",
    **dict.fromkeys(("send", "recv", "recv_anysource"), "Tensors for P2P must be non-overlapping and dense"),
}
"""Method -> what it says of tensors that have gaps between their elements, or one element twice."""

DISPATCHED: Final = {"allgather": 1, "gather": 1, "reduce_scatter": 0, "scatter": 0}
"""Method -> the one argument by whose tensors the backend is chosen, not that with a list for each tensor."""

GUARDED: Final = frozenset(("reduce_scatter", "reduce_scatter_single", "_reduce_scatter_base"))
"""Methods that make the card of their input, the second argument, the current one."""

_SPARSE: Final = "NCCL does not support all_reduce with sparse tensors. Please use dense tensors instead."
_WITHOUT_CARDS: Final = "No backend type associated with device type cpu"
_ELSEWHERE: Final = "Attempt to perform collective on tensor not on device passed to init_process_group"
_DUPLICATE: Final = (
    "NCCL error in: simulated, invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version {version}\n"
    "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\n"
    "Last error:\nDuplicate GPU detected : rank {first} and rank {second} both on CUDA device {card:x}"
)


@dataclass(slots=True)
class Members:
    """A group of ranks that each have a card.

    Attributes:
        machine: what is simulated, the same in each rank.
        tags: on which device each tensor is.
        only_cards: whether the group has no backend for tensors of the CPU.
        store: where the ranks leave what the others need.
        rank: of this process in the group.
        size: how many ranks there are.
        cards: the cards that were compared already.
    """

    machine: Machine
    tags: Tags
    only_cards: bool
    store: Any
    rank: int
    size: int
    cards: set[int] = field(default_factory=set)

    def refuse(self, values: Any, bound: torch.device | None, *, together: bool) -> None:
        """Raise for tensors that the cards' backend does not take.

        Args:
            values: the arguments of a collective.
            bound: the card that the group was made for; None where any will do.
            together: whether all ranks take part, as they do not in `send` and `recv`.

        Raises:
            RuntimeError: a tensor is on the CPU, for which the group has no backend.
            torch.distributed.DistBackendError: a tensor is on another card than the group's, or two ranks use one.
        """
        with unintercepted():
            devices = dict.fromkeys(self.tags.of(tensor) for tensor in _tensors(values))
        for device in devices:
            if device is None:
                if self.only_cards:
                    raise RuntimeError(_WITHOUT_CARDS)
                continue
            if bound is not None and device != bound:
                raise torch.distributed.DistBackendError(_ELSEWHERE)
            if together:
                self._compare(self.machine.numbers[device.index])

    def refuse_layout(self, method: str, values: tuple[Any, ...]) -> None:
        """Raise for tensors that NCCL does not take beside one on a card, by where they are or how they lie in memory.

        Args:
            method: the name of the group's method.
            values: its positional arguments.

        Raises:
            ValueError: a tensor is on the CPU, not contiguous where it has to be, or not dense.
            RuntimeError: the input of a `reduce_scatter` is on the CPU, or what is reduced is sparse.
        """
        with unintercepted():
            chosen = DISPATCHED.get(method)
            tensors = list(_tensors(values if chosen is None else values[chosen : chosen + 1]))
            if self.machine.device_type != "cuda" or all(self.tags.of(tensor) is None for tensor in tensors):
                return
            if any(tensor.layout != torch.strided for tensor in tensors):
                if method == "allreduce":
                    raise RuntimeError(_SPARSE)
                return
            places = (0,) if method in DENSE else CONTIGUOUS.get(method, ())
            for tensor in (each for place in places for each in _tensors(values[place : place + 1])):
                if self.tags.of(tensor) is None:
                    raise ValueError("Tensors must be CUDA and dense")
                if method in DENSE and not _is_dense(tensor):
                    raise ValueError(DENSE[method])
                if method not in DENSE and not _is_contiguous(tensor):
                    raise ValueError("Tensors must be contiguous")
            if method in GUARDED and any(self.tags.of(tensor) is None for tensor in _tensors(values[1:2])):
                raise RuntimeError("CUDAGuardImpl initialized with non-CUDA DeviceType: cpu")

    def _compare(self, card: int) -> None:
        """Make sure, once for each card, that it is the card of no other rank."""
        if card in self.cards or self.size < 2:
            return
        turn = len(self.cards)
        self.cards.add(card)
        self.store.set(f"card/{turn}/{self.rank}", str(card))
        every = [int(self.store.get(f"card/{turn}/{rank}")) for rank in range(self.size)]
        for second, number in enumerate(every):
            if (first := every.index(number)) != second:
                nccl: Any = torch.cuda.nccl
                version = ".".join(map(str, nccl.version()))
                text = _DUPLICATE.format(version=version, first=first, second=second, card=(number + 1) << 12)
                raise torch.distributed.DistBackendError(text)


KNOWN: Final[WeakKeyDictionary[Any, Members]] = WeakKeyDictionary()
"""Process group -> its members, for groups with a backend of simulated cards."""


def _is_contiguous(tensor: torch.Tensor) -> bool:
    """Whether a tensor is contiguous in one of the formats that C++ takes for its own."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    other = formats.get(tensor.dim())
    return tensor.is_contiguous() or (other is not None and tensor.is_contiguous(memory_format=other))


def _is_dense(tensor: torch.Tensor) -> bool:
    dense: bool = torch.ops.aten.is_non_overlapping_and_dense.default(tensor)
    return dense


def as_it_lies(value: Any) -> Any:
    """`value` with its tensors, which are dense, as rows of numbers in the order in which they lie in memory."""
    if isinstance(value, (list, tuple)):
        return [as_it_lies(each) for each in value]
    if not isinstance(value, torch.Tensor) or value.is_contiguous():
        return value
    with unintercepted():
        return value.as_strided((value.numel(),), (1,))


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def functional_handlers() -> dict[Any, Any]:
    """Torch function -> handler, for the collectives that are operators: they reach a group without its methods."""
    if not torch.distributed.is_available():
        return {}
    operators: Any = torch.ops._c10d_functional
    table: dict[Any, Any] = {}
    for name in FUNCTIONAL:
        if (packet := getattr(operators, name, None)) is not None:
            table |= {packet: _checked, packet.default: _checked}
    return table


def _checked(mode: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from torch.distributed import distributed_c10d

    c10d: Any = distributed_c10d
    given = (*args, *kwargs.values())
    name = next((value for value in reversed(given) if isinstance(value, str)), None)
    group = None if name is None else c10d._resolve_process_group(name)
    if (members := KNOWN.get(group)) is not None:
        members.refuse(given, getattr(group, "bound_device_id", None), together=True)
    return mode.compute(func, args, kwargs)
