"""Checks of a loaded model's tensors against the plan: meta leftovers, devices, dtypes, ties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.result import Finding, Result
from pytest_llmdevice.loading.plan import OFFLOADING, Plan, offload_hook, with_index
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    import torch
    from torch import nn

LEFT_BEHIND: Final = (
    "this tensor was not moved with the rest: it is created after the move, is not registered as a parameter "
    "or buffer, or the device map does not name its module"
)
WRONG_INDEX: Final = "a device without an index means the current card, not the one that was asked for"
FLOAT32: Final = (
    "the dtype was dropped on the way (dtype=, formerly torch_dtype=), or this part was created after the cast"
)
META: Final = "a parameter was never given its weights: operations with it read uninitialised memory"
TIED: Final = "loading or moving replaced one of the two tensors; call model.tie_weights() after it"


def tensors(model: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(name, role, tensor) of every parameter and buffer, shared ones under each of their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, "parameter", parameter
    for name, buffer in model.named_buffers(remove_duplicate=False):
        yield name, "buffer", buffer


def check_meta(model: nn.Module) -> Result:
    """No tensor is on the meta device, unless an offload hook will bring it."""
    findings, looked, offloaded = [], 0, 0
    for name, role, tensor in tensors(model):
        looked += 1
        if not tensor.is_meta:
            continue
        hook = offload_hook(model, name)
        if hook is None or (role == "buffer" and not hook.offload_buffers):
            findings.append(Finding(name, f"{role} with data", "meta, and no hook that would bring it", META))
        else:
            offloaded += 1
    return Result("meta", tuple(findings), {"tensors": looked, "offloaded": offloaded})


def check_placement(model: nn.Module, plan: Plan, cell: Cell) -> Result:
    """Every parameter and buffer of the plan exists and is on its device, index included."""
    present = {name: tensor for name, _, tensor in tensors(model)}
    findings = []
    places: dict[str, int] = {}
    for expected in plan.tensors:
        tensor = present.get(expected.name)
        if tensor is None:
            findings.append(Finding(expected.name, f"a {expected.role}", "nothing of that name"))
            continue
        place = with_index(tensor.device)
        places[place] = places.get(place, 0) + 1
        if place not in expected.devices:
            same_kind = place.partition(":")[0] == cell.torch_device.type
            findings.append(
                Finding(expected.name, " or ".join(expected.devices), place, WRONG_INDEX if same_kind else LEFT_BEHIND)
            )
    if cell.strategy in OFFLOADING and "meta" not in places:
        findings.append(Finding("the model", f"part of it offloaded ({cell.strategy})", "nothing offloaded"))
    if cell.strategy == "split" and len(places) < 2:
        findings.append(Finding("the model", "spread over two devices", f"all on {next(iter(places), 'no device')}"))
    planned = {expected.name for expected in plan.tensors}
    findings += [
        Finding(name, " or ".join(plan.devices), with_index(tensor.device), LEFT_BEHIND)
        for name, tensor in present.items()
        if name not in planned and not tensor.is_meta and with_index(tensor.device) not in plan.devices
    ]
    return Result("placement", tuple(findings), {f"on {place}": count for place, count in places.items()})


def check_dtypes(model: nn.Module, plan: Plan, cell: Cell) -> Result:
    """Every dense parameter and buffer has the dtype that was asked for, or the one its class insists on.

    Packed weights are the quantization check's. Tensors that the architecture does not have (adapters) must
    be in the cell's dtype or, as PEFT keeps them, in float32.
    """
    planned = {expected.name: expected for expected in plan.tensors}
    packed = {weight.parameter for weight in plan.weights if weight.quantized}
    findings = []
    seen: dict[str, int] = {}
    for name, _, tensor in tensors(model):
        if name in packed and not tensor.is_floating_point():
            continue
        dtype = str(tensor.dtype).removeprefix("torch.")
        seen[dtype] = seen.get(dtype, 0) + 1
        expected = planned.get(name)
        if expected is None:
            if tensor.is_floating_point() and dtype not in {cell.dtype, "float32"}:
                findings.append(Finding(name, f"{cell.dtype} or float32", dtype, FLOAT32))
            continue
        wanted = cell.dtype if expected.storage == "packed" else expected.dtype
        if dtype != wanted:
            reason = f"{wanted} ({expected.why})" if expected.why and expected.storage != "packed" else wanted
            findings.append(Finding(name, reason, dtype, FLOAT32))
    return Result("dtypes", tuple(findings), seen)


def check_tied(model: nn.Module, plan: Plan) -> Result:
    """Weights that the configuration ties share one tensor, and an untied head does not share the embedding."""
    present = dict(model.named_parameters(remove_duplicate=False))
    findings = []
    for group in plan.ties:
        first = group[0]
        for name in group[1:]:
            if first not in present or name not in present:
                missing = first if first not in present else name
                findings.append(Finding(missing, f"tied to {first}", "nothing of that name"))
            elif not _shared(model, first, name, present):
                findings.append(Finding(name, f"the same tensor as {first}", "a tensor of its own", TIED))
    for embedding, head in plan.untied:
        if embedding in present and head in present and _shared(model, embedding, head, present):
            findings.append(
                Finding(head, "a tensor of its own (tie_word_embeddings is false)", f"the tensor of {embedding}")
            )
    evidence = {"tied tensors": sum(map(len, plan.ties)), "untied pairs": len(plan.untied)}
    return Result("tied", tuple(findings), evidence)


def _shared(model: nn.Module, first: str, second: str, present: dict[str, nn.Parameter]) -> bool:
    one, other = present[first], present[second]
    if one is other:
        return True
    if one.is_meta and other.is_meta:
        # Offloaded: the hooks hold the data. A map that keeps one entry for both is what accelerate does.
        values = [_offloaded(model, name) for name in (first, second)]
        return values[0] is not None and values[1] is not None and bool((values[0] == values[1]).all())
    return one.device == other.device and one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _offloaded(model: nn.Module, name: str) -> torch.Tensor | None:
    weights = getattr(offload_hook(model, name), "weights_map", None)
    if weights is None:
        return None
    tensor: torch.Tensor = weights[name.rpartition(".")[2]]
    return tensor
