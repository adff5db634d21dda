"""Checks that every tensor is on its device, and that hooks and maps agree with where tensors are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import placement as hints
from pytest_llmdevice.diagnosis.places import PlacementEvidence, cause_of_place
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.ranks import is_sharded
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.device_map import DeviceMap, as_torch_device, hooks_of, offload_hook, with_index
from pytest_llmdevice.model.doors import device_of, dtype_of, parts_of
from pytest_llmdevice.model.names import parameters_of
from pytest_llmdevice.monitoring.ranks import any_rank, size_here
from pytest_llmdevice.oracle.expectations import Expectations, Expected, offloads, tensor_attributes

if TYPE_CHECKING:
    import torch
    from torch import nn


LEAST_CUT: Final = 0.5
"""The share of the parameters that a strategy which cuts weights has to cut. Norms, biases and what has no plan are
whole in each process: transformers' plans cut more than this of all models of the zoo but gpt-oss, whose experts they
leave whole."""


def check_placement(
    model: nn.Module, expectations: Expectations, cell: Cell, *, piped: bool = False, checkpoint: str = ""
) -> Result:
    """Every tensor of the plan exists and is on its device, index included; so is whatever else the model has.

    Adapters are beside the layer they belong to, tensors that are plain attributes of a module are beside the
    model, hooks send inputs to where the parameters are, and a strategy that spreads or offloads really did so. `piped`
    says whether the load made a pipeline of transformers. Of a strategy that cuts weights, a plain load of `checkpoint`
    says how much it has to cut.
    """
    present = {name: tensor for name, _, tensor in tensors(model)}
    if another := foreign(expectations, present):
        return Result("placement", (another,))
    entries = DeviceMap(model)
    places: dict[str, int] = {}
    findings: list[Finding] = []
    wrong: list[tuple[Expected, str]] = []
    for expected in expectations.tensors:
        tensor = present.get(expected.name)
        if tensor is None and expected.away:
            continue
        if tensor is None:
            findings.append(Finding(expected.name, f"a {expected.role}", "nothing of that name"))
            continue
        place = with_index(device_of(tensor))
        places[place] = places.get(place, 0) + 1
        if place not in expected.devices and not _carried(model, expected.name, place, cell):
            wrong.append((expected, place))
    evidence = _evidence(model, entries, places, cell, piped=piped)
    findings += [_misplaced(expected, place, model, evidence) for expected, place in wrong]
    findings += _strategy(model, places, cell)
    findings += _extras(model, expectations, present, cell)
    findings += _attributes(model, expectations)
    # Where tensors are wrong themselves, what their hooks say adds nothing.
    findings += [] if findings else _hooks(model)
    counts: dict[str, int | float | str] = {f"on {place}": count for place, count in places.items()}
    if is_sharded(cell):
        share = cut_share(present, expectations)
        counts["cut"] = f"{share:.0%}"
        findings += _uncut(share, checkpoint, cell)
    return Result("placement", tuple(findings), counts)


def _evidence(
    model: nn.Module, entries: DeviceMap, places: dict[str, int], cell: Cell, *, piped: bool
) -> PlacementEvidence:
    return PlacementEvidence(
        cell=cell,
        places=tuple(places),
        mapped=entries.devices,
        hooked=any(True for module in model.modules() for _ in hooks_of(module)),
        cards=current().of(Strategy)[cell.strategy].cards,
        automatic=current().of(Strategy)[cell.strategy].automatic,
        offload=bool(offloads(cell)),
        piped=piped,
    )


def _misplaced(expected: Expected, place: str, model: nn.Module, evidence: PlacementEvidence) -> Finding:
    brought = place == "meta" and offload_hook(model, expected.name) is not None
    hint = cause_of_place(evidence, place, buffer=expected.role == "buffer", brought=brought)
    return Finding(expected.name, " or ".join(expected.devices), place, hint)


def _carried(model: nn.Module, name: str, place: str, cell: Cell) -> bool:
    """Whether a tensor waits on the cpu for accelerate's `cpu_offload_with_hook`, which moves whole modules."""
    if place != "cpu" or not offloads(cell):
        return False
    path = name
    while path:
        path = path.rpartition(".")[0]
        if any(type(hook).__name__ == "CpuOffload" for hook in hooks_of(model.get_submodule(path))):
            return True
    return False


def cut_share(present: Mapping[str, torch.Tensor], expectations: Expectations) -> float:
    """Which share of the parameters, by their numbers, this process has only a part of."""
    sizes = {each.name: math.prod(each.shape) for each in expectations.tensors if each.role == "parameter"}
    return _share({name: (size, present[name]) for name, size in sizes.items() if name in present})


def _share(parameters: Mapping[str, tuple[int, torch.Tensor]]) -> float:
    every = cut = 0
    for size, tensor in parameters.values():
        here = sum(part.numel() for part in parts_of(tensor).values()) or tensor.numel()
        every += size
        cut += size if here < size else 0
    return cut / every if every else 0.0


def _uncut(share: float, checkpoint: str, cell: Cell) -> Iterator[Finding]:
    """A finding where less is cut than a strategy of several processes has to cut, here or in another of them.

    The plans of some architectures leave nearly all of it whole: then a plain load, in all processes, says how much.
    """
    if not any_rank(said=share < LEAST_CUT):
        return
    wanted = LEAST_CUT
    if checkpoint and size_here() > 1:
        with suppress(Exception):
            plain: Any = BuiltinTarget().load(checkpoint, cell)
            wanted = _share({name: (each.numel(), each) for name, each in plain.named_parameters()})
    if share < min(wanted, LEAST_CUT) * 0.99:
        expected = f"{wanted:.0%} of its weights cut, as by a plain load with {cell.strategy}"
        yield Finding("the model", expected, f"{share:.0%} of them cut", hints.NOT_CUT)


def _strategy(model: nn.Module, places: dict[str, int], cell: Cell) -> Iterator[Finding]:
    """What is wrong where a strategy was asked for and not followed."""
    if len(places) < current().of(Strategy)[cell.strategy].cards > 1:
        yield Finding(
            "the model", "spread over two devices", f"all on {next(iter(places), 'no device')}", hints.NOT_FOLLOWED
        )
    if not offloads(cell):
        return
    if "meta" not in places and not any(_carried(model, f"{name}.", "cpu", cell) for name, _ in model.named_modules()):
        yield Finding("the model", f"part of it offloaded ({cell.strategy})", "nothing offloaded", hints.NOT_FOLLOWED)
        return
    kept = {kind: name for name in parameters_of(model) if (kind := storage_of(model, name))}
    wanted = offloads(cell)
    if kept and wanted not in kept:
        where, name = next(iter(kept.items()))
        yield Finding(name, f"its data in {_STORAGE[wanted]} ({cell.strategy})", _STORAGE[where], hints.NOT_FOLLOWED)


_STORAGE = {"disk": "a file on disk", "memory": "the CPU's memory"}


def storage_of(model: nn.Module, name: str) -> str:
    """Where the data of the offloaded parameter `name` is, `"disk"` or `"memory"`; empty where it is not known."""
    weights = getattr(offload_hook(model, name), "weights_map", None)
    dataset = getattr(weights, "dataset", None)
    if dataset is None:
        return ""
    key = f"{getattr(weights, 'prefix', '')}{name.rpartition('.')[2]}"
    if key in (getattr(dataset, "index", None) or ()):
        return "disk"
    return "memory" if key in (getattr(dataset, "state_dict", dataset) or ()) else ""


def _extras(model: nn.Module, expectations: Expectations, present: dict[str, Any], cell: Cell) -> Iterator[Finding]:
    known = {extra.name: extra for extra in expectations.extras}
    planned = {expected.name for expected in expectations.tensors}
    for name, tensor in present.items():
        if name in planned:
            continue
        place, extra = with_index(device_of(tensor)), known.get(name)
        allowed = extra.devices if extra else expectations.devices
        beside = extra.beside if extra else ""
        if place in allowed or (place == "meta" and offload_hook(model, name) is not None):
            continue
        # PyTorch takes a number of the CPU beside tensors of any device (optimum-quanto's scales of activations).
        if place == "cpu" and tensor.ndim == 0:
            continue
        # An adapter beside an offloaded layer is where that layer computes, or waits with it.
        if "meta" in allowed and (place in expectations.devices or place == "cpu"):
            continue
        wanted = " or ".join(allowed) + (f", as {beside}" if beside else "")
        hint = hints.CARD_PREFERRED if cell.kind == "cpu" else hints.ADAPTER if beside else hints.LEFT_BEHIND
        yield Finding(name, wanted, place, hint)


def _attributes(model: nn.Module, expectations: Expectations) -> Iterator[Finding]:
    """Floating-point tensors that modules keep as plain attributes, which `to` and device maps pass by.

    Integers are left alone, and so is what the outermost module keeps: stop tokens and the like, of the target's own.
    """
    owned = {
        expected.name.rpartition(".")[0]: expected.architecture.rpartition(".")[0] for expected in expectations.tensors
    }
    for name, module in model.named_modules():
        if not name:
            continue
        for key, tensor in tensor_attributes(module).items():
            place = with_index(device_of(tensor))
            if not dtype_of(tensor).is_floating_point or place in expectations.devices:
                continue
            if f"{owned.get(name, name)}.{key}" in expectations.attributes or key.startswith("_hf"):
                continue
            yield Finding(f"{name}.{key}", " or ".join(expectations.devices), place, hints.ATTRIBUTE)


def _hooks(model: nn.Module) -> Iterator[Finding]:
    """Modules whose hook sends inputs to another device than the one that their parameters are on."""
    for name, module in model.named_modules():
        for hook in hooks_of(module):
            device = getattr(hook, "execution_device", None)
            if device is None or getattr(hook, "offload", False) or type(hook).__name__ == "CpuOffload":
                continue
            there = with_index(as_torch_device(device))
            for key, tensor in _own(module):
                place = with_index(device_of(tensor))
                if place not in {there, "meta"}:
                    where = f"{name}.{key}" if name else key
                    yield Finding(
                        where, f"{there}, where the hook of {name or 'the model'} sends its inputs", place, hints.STALE
                    )


def _own(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


PLACEMENT_CHECK: Final = Check(
    "placement",
    lambda exam: check_placement(
        exam.model, exam.expectations, exam.cell, piped=exam.loaded.piped, checkpoint=exam.checkpoint
    ),
    "every parameter and buffer is on the device that was asked for, index included",
    "A tensor is on another device than the cell asks for.",
    failure="placement",
    after="meta",
)
