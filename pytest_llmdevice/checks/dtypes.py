"""Checks that every tensor, and the configuration, has the dtype that was requested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import dtypes as hints
from pytest_llmdevice.diagnosis.hints.quantization import EXCLUDED
from pytest_llmdevice.loading.pretrained import configuration
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import DeviceMap
from pytest_llmdevice.model.doors import dtype_of, few_bits
from pytest_llmdevice.model.weights import is_packed
from pytest_llmdevice.model.wrappers import configuration_of
from pytest_llmdevice.oracle.expectations import KEPT, Expectations, Expected

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.diagnosis import Hint


def check_dtypes(model: nn.Module, expectations: Expectations, cell: Cell, checkpoint: str = "") -> Result:
    """Every dense parameter and buffer has the dtype that was asked for, or the one its class insists on.

    Packed weights are the quantization check's. Tensors that the architecture does not have (adapters) must
    be in the cell's dtype or, as PEFT keeps them, in float32. The configuration, and each configuration inside it,
    says what was asked for or, as after `load_checkpoint_and_dispatch`, what the `config.json` of `checkpoint` says.
    """
    planned = {expected.name: expected for expected in expectations.tensors}
    named = list(tensors(model))
    if another := foreign(expectations, {name: tensor for name, _, tensor in named}):
        return Result("dtypes", (another,))
    stored = expectations.stored
    packed = {weight.parameter for weight in expectations.weights if weight.quantized or weight.module in stored}
    configs = list(_configurations(configuration_of(model), checkpoint))
    # `load_checkpoint_and_dispatch` leaves the configuration as it was, and a map, also for one device.
    filled = bool(DeviceMap(model).entries) and any(dtype != cell.dtype for _, dtype, _ in configs)
    shapes = {name: tuple(tensor.shape) for name, _, tensor in named}
    findings = []
    wrong: list[tuple[Expected, Finding]] = []
    seen: dict[str, int] = {}
    right = 0
    for name, _, tensor in named:
        if name in packed and (is_packed(tensor) or few_bits(dtype_of(tensor))):
            continue
        dtype = dtype_name(dtype_of(tensor))
        seen[dtype] = seen.get(dtype, 0) + 1
        expected = planned.get(name)
        if expected is None:
            if dtype_of(tensor).is_floating_point and dtype not in {cell.dtype, "float32"}:
                wanted = " or ".join(dict.fromkeys((cell.dtype, "float32")))
                findings.append(Finding(name, wanted, dtype, hints.ADAPTER))
            continue
        wanted = cell.dtype if expected.storage == "packed" else expected.dtype
        if dtype == wanted or _excused(expected, dtype, cell, filled=filled):
            right += expected.role == "parameter"
            continue
        reason = f"{wanted} ({expected.why})" if expected.why and expected.storage != "packed" else wanted
        wrong.append((expected, Finding(name, reason, dtype)))
    # A quantized model that was loaded in the right dtype, and of which nothing that is not packed is in it any more.
    prepared = (
        cell.quantization != "none"
        and bool(packed)
        and not right
        and any(dtype == cell.dtype != "float32" for _, dtype, _ in configs)
    )
    findings = [
        Finding(
            finding.where,
            finding.expected,
            finding.actual,
            _cause(expected, finding.actual, cell, shapes[expected.name], others_right=right > 0, prepared=prepared),
        )
        for expected, finding in wrong
    ] + findings
    findings += [
        Finding(where, " or ".join(dict.fromkeys((cell.dtype, *own))), dtype, hints.CONFIG)
        for where, dtype, own in configs
        if dtype not in {cell.dtype, *own}
    ]
    return Result("dtypes", tuple(findings), {**seen, "dtypes in the configuration": len(configs)})


def _excused(expected: Expected, dtype: str, cell: Cell, *, filled: bool) -> bool:
    """Whether a tensor may be in another dtype than transformers would give it.

    A buffer that the class computes is in float32 where the model is made first and filled afterwards (Gemma's
    `embed_scale`, with accelerate). And accelerate casts what it reads and knows no lists of what to keep in float32.
    """
    if expected.computed:
        return dtype == "float32"
    return filled and expected.why == KEPT and dtype == cell.dtype


def _cause(
    expected: Expected, dtype: str, cell: Cell, shape: tuple[int, ...], *, others_right: bool, prepared: bool
) -> Hint | None:
    """What usually makes a tensor of `shape` a `dtype` that was to be something else; None where nothing is known."""
    if not dtype.startswith(("float", "bfloat")):
        return EXCLUDED if cell.quantization != "none" else None
    if expected.role == "buffer" and expected.dtype == "float32":
        return hints.BUFFER_CAST
    if expected.dtype == "float32" and cell.dtype != "float32":
        return hints.KEPT_CAST
    if dtype in {"float16", "bfloat16"}:
        return hints.HARD_CODED
    if prepared and dtype == "float32":
        return hints.KBIT
    if not others_right:
        return hints.DROPPED
    return hints.GROWN if shape[1:] == expected.shape[1:] and shape[:1] != expected.shape[:1] else hints.LATE


def _configurations(config: Any, checkpoint: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(name, dtype, the checkpoint's own dtypes for it) of `config` and of every configuration inside it.

    Parts that name no dtype are left out.
    """
    if config is None:
        return
    stored = dict(_parts("config", configuration(checkpoint))) if checkpoint else {}
    for name, part in _parts("config", config):
        dtype = _dtype_of(part)
        # A part whose own configuration names none has the whole's.
        own = {_dtype_of(stored[one]) for one in (name, "config") if one in stored} - {""}
        if dtype:
            yield f"{name}.dtype", dtype, tuple(sorted(own))


def _parts(name: str, config: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    from transformers import PretrainedConfig

    yield name, config
    for key, value in vars(config).items() if depth else ():
        if isinstance(value, PretrainedConfig):
            yield from _parts(f"{name}.{key}", value, depth - 1)


def _dtype_of(config: Any) -> str:
    """The dtype that `config` names, empty for none. Before transformers 4.56 it was called `torch_dtype`."""
    values = vars(config)
    found = values.get("dtype") or values.get("_dtype") or values.get("torch_dtype") or getattr(config, "dtype", None)
    return dtype_name(found) if found is not None else ""


DTYPES_CHECK: Final = Check(
    "dtypes",
    lambda exam: check_dtypes(exam.model, exam.expectations, exam.cell, exam.checkpoint),
    ("every parameter and buffer has the dtype that was asked for, or the float32 that its class insists on"),
    "A tensor is in another dtype than the cell asks for.",
    failure="dtype",
    after="placement",
)
