"""Provides NCCL, and its like, for simulated cards: the collectives of several processes go through Gloo.

Each process simulates the same machine and has its own card there, as under `torchrun`. Gloo moves the values, which
are in the CPU's memory; which tensors a collective takes, and on which device its answers are, is as with the library
of the cards.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import Any, Final

import torch

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.process_groups import KNOWN, Members, as_it_lies
from pytest_llmdevice.simulation.tags import Tags

BACKENDS: Final = {"cuda": "nccl", "xpu": "xccl"}
"""Device type -> the backend of its cards."""

NCCL_VERSION: Final = (2 << 32) + (29 << 16) + 7
"""2.29.7, that of PyTorch 2.13 for CUDA 13."""

TIMEOUT: Final = dt.timedelta(minutes=10)
"""NCCL's own default."""

CPU: Final = torch.device("cpu")

BETWEEN_TWO: Final = ("recv", "recv_anysource", "send")
"""The methods of a process group that take tensors, and in which not all ranks take part."""

TOGETHER: Final = (
    "_allgather_base",
    "_reduce_scatter_base",
    "all_gather_single",
    "all_to_all_single",
    "allgather",
    "allgather_coalesced",
    "allgather_into_tensor_coalesced",
    "allreduce",
    "allreduce_coalesced",
    "alltoall",
    "alltoall_base",
    "broadcast",
    "gather",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced",
    "scatter",
)
"""Those in which all ranks take part."""


def install(machine: Machine, tags: Tags, patches: Patches) -> None:
    """Have `torch.distributed` know the backend of the cards, if this build has process groups at all."""
    backend = BACKENDS.get(machine.device_type)
    if backend is None or not torch.distributed.is_available():
        return
    from torch.distributed import distributed_c10d

    c10d: Any = distributed_c10d
    if not c10d.is_gloo_available():
        return
    name = f"ProcessGroup{backend.upper()}"
    patches.set(c10d, name, _backend_class(c10d, name, backend))
    patches.set(c10d, f"_{backend.upper()}_AVAILABLE", True)
    if backend == "nccl":
        patches.set(c10d, "default_pg_nccl_timeout", TIMEOUT)
        patches.set(torch._C, "_nccl_version", lambda: NCCL_VERSION)
        patches.set(torch._C, "_nccl_version_suffix", lambda: b"")
    # Gloo has no communicator that a new group must be split from.
    patches.set(c10d, "_get_split_source", lambda _group: None)
    patches.set(c10d, "split_group", _split_group(c10d))
    mesh: Any = sys.modules.get("torch.distributed.device_mesh")
    if mesh is not None and hasattr(mesh, "split_group"):
        patches.set(mesh, "split_group", c10d.split_group)
    _install_backend(machine, tags, c10d.ProcessGroup, patches)
    for method in (*BETWEEN_TWO, *TOGETHER):
        if hasattr(c10d.ProcessGroup, method):
            checked = _checked(method, getattr(c10d.ProcessGroup, method))
            patches.set(c10d.ProcessGroup, method, checked)


def _backend_class(c10d: Any, name: str, backend: str) -> type:
    """A class of Gloo's process groups that is made and asked like that of the cards' library."""

    class Options:
        """What such a group is made with."""

        def __init__(self, is_high_priority_stream: bool = False) -> None:  # NCCL's own
            self.is_high_priority_stream = is_high_priority_stream
            self._timeout = TIMEOUT
            self.global_ranks_in_group: list[int] = []
            self.group_name = ""

    def make(self: Any, store: Any, rank: int, size: int, options: Any = None) -> None:
        given = options or Options()
        c10d.ProcessGroupGloo.__init__(self, store, rank, size, timeout=given._timeout)
        self.given, self.store = given, store

    body = {
        "__module__": c10d.__name__,
        "Options": Options,
        "__init__": make,
        "name": lambda _: backend,
        "options": property(lambda self: self.given),
    }
    return type(name, (c10d.ProcessGroupGloo,), body)


def _split_group(c10d: Any) -> Callable[..., Any]:
    """`split_group` by new groups: Gloo does not split what it has."""

    def split_group(
        parent_pg: Any = None,
        split_ranks: list[list[int]] | None = None,
        timeout: dt.timedelta | None = None,
        pg_options: Any = None,
        group_desc: str | None = None,
    ) -> Any:
        parent = parent_pg or c10d._get_default_group()
        mine = None
        for ranks in split_ranks or ():
            every = [c10d.get_global_rank(parent, rank) for rank in ranks]
            group = c10d.new_group(every, timeout=timeout, pg_options=pg_options, group_desc=group_desc)
            mine = group if c10d.get_rank() in every else mine
        return mine

    return split_group


def _install_backend(machine: Machine, tags: Tags, group: Any, patches: Patches) -> None:
    """Have groups with the cards' backend take tensors that are to C++ on the CPU."""
    kinds = group.BackendType
    theirs = {kinds.NCCL, kinds.XCCL}
    register, default, barrier = group._register_backend, group._set_default_backend, group.barrier
    devices = vars(group)["_device_types"]

    def register_backend(self: Any, device: torch.device, kind: Any, made: Any = None) -> None:
        if kind not in theirs:
            register(self, device, kind, made)
            if (members := KNOWN.get(self)) is not None and device.type == "cpu":
                members.only_cards = False
            return
        alone = CPU not in devices.__get__(self)
        # C++ takes two backends of a kind for one.
        register(self, device, kinds.GLOO if alone else kind, made)
        if alone:
            register(self, CPU, kinds.GLOO, made)
        KNOWN[self] = Members(machine, tags, alone, getattr(made, "store", None), self.rank(), self.size())

    def set_default_backend(self: Any, kind: Any) -> None:
        # C++ makes the tensor of a barrier where the default backend has its own.
        default(self, kinds.GLOO if kind in theirs else kind)

    def device_types(self: Any) -> list[torch.device]:
        known = KNOWN.get(self)
        found: list[torch.device] = devices.__get__(self)
        return found if known is None or not known.only_cards else [device for device in found if device != CPU]

    def barrier_without_device(self: Any, *args: Any, **kwargs: Any) -> Any:
        for options in (*args, *kwargs.values()):
            if hasattr(options, "device_ids"):
                options.device, options.device_ids = None, []
        return barrier(self, *args, **kwargs)

    patches.set(group, "_register_backend", register_backend)
    patches.set(group, "_set_default_backend", set_default_backend)
    patches.set(group, "_device_types", property(device_types))
    patches.set(group, "barrier", barrier_without_device)


def _checked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def collective(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (members := KNOWN.get(self)) is None:
            return method(self, *args, **kwargs)
        members.refuse_layout(name, args)
        # What is gathered is copied from the card, wherever it is to be.
        taken = args[1:] if name == "allgather" else args
        members.refuse((*taken, *kwargs.values()), self.bound_device_id, together=name in TOGETHER)
        if name in BETWEEN_TWO:
            args = (as_it_lies(args[0]), *args[1:])
        try:
            return method(self, *args, **kwargs)
        except NotImplementedError as error:
            # No kernel for sparse tensors: C++ names the backend of those that it was handed.
            theirs = f"Sparse{members.machine.device_type.upper()}"
            raise NotImplementedError(str(error).replace("SparseCPU", theirs)) from None

    return collective
