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
