"""Checks that every tensor has the value that a plain load of the same checkpoint has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.adapter_values import adapter_findings, is_merged, scale_of_change
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.plain_tensors import Plain
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.slices import slices_of_rank
from pytest_llmdevice.checks.stored_values import Stored
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.divergence import unravel_index
from pytest_llmdevice.diagnosis.hints.values import NOT_APPLIED, PACKED, SHAPE, SHIFTED, UNREADABLE
from pytest_llmdevice.diagnosis.wrong_values import explain, relative_error
from pytest_llmdevice.loading.adapters import is_adapter, is_live
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.doors import decides, dtype_of, few_bits, plain_values
from pytest_llmdevice.model.names import NamedTensor, TensorNames
from pytest_llmdevice.model.packing import packing, weight_of
from pytest_llmdevice.model.weights import dequantized, has_packed_class, is_packed, offloaded_value
from pytest_llmdevice.monitoring.ranks import rank_here, size_here
from pytest_llmdevice.oracle.linear_weights import LinearWeight
from pytest_llmdevice.oracle.recognition import names_of

if TYPE_CHECKING:
    import torch
    from torch import nn

UNPACKED: Final = 2**-7
"""The allowed relative error of a number that the checkpoint holds packed: scale and product rounded to bfloat16."""

OFFSET: Final = 1.0
"""How far the mean error of a packed weight may be from zero, in standard deviations of the error. Rounding gives at
most 0.1 over the zoo; codes that are all one too low give 3.5."""

LEAST: Final = 64
"""Numbers of which a mean says something."""

COMPUTED: Final = 1e-5
"""The allowed relative error of a buffer that was computed on another device or in another order of operations."""


def check_values(model: nn.Module, checkpoint: str, cell: Cell) -> Result:
    """Compare parameters with those of a plain load, up to one rounding of their dtype, and buffers with computed ones.

    Packed weights are dequantized, and may have the error of their quantization. Offloaded weights are read through
    their hook. A tensor in a wrong dtype is right here if it was rounded to that dtype only; the dtype check reports
    the dtype, and the placement check missing tensors.
    """
    live = is_live(model)
    plain = Plain.of(checkpoint, cell, live=live)
    findings: list[Finding] = []
    counts = {"parameters": 0, "buffers": 0, "packed weights": 0, "offloaded": 0}
    worst = 0.0
    names = names_of(model, checkpoint, plain.model)
    stored = Stored.of(checkpoint, model, names)
    for named in names.tensors:
        if named.architecture not in plain.tensors or named.name in stored.names:
            continue
        packed = _is_packed(named, plain)
        value = offloaded_value(model, named.name) if named.tensor.is_meta else plain_values(named.tensor)
        if value is None and (named.tensor.is_meta or not (packed or decides(named.tensor))):
            # No hook has it, which the meta check reports.
            continue
        counts["offloaded"] += named.tensor.is_meta
        if packed:
            owner = model.get_submodule(named.name.rpartition(".")[0])
            error, finding = _packed(owner, named.name, named.architecture or "", named.tensor, plain, cell)
            counts["packed weights"] += 1
            worst = max(worst, error)
        elif value is None:
            kind = type(named.tensor).__name__
            finding = Finding(named.name, "a tensor whose numbers can be read", f"a {kind}, which gives none")
        else:
            if named.part is not None:
                value = named.part.of(value)
            finding = _dense(named, plain.without_new_rows(value.cpu(), named.architecture or ""), plain)
            counts[f"{named.role}s"] += 1
        if finding is not None:
            findings.append(finding)
    wrong, counts["stored packed"] = stored.findings(model)
    findings += wrong
    for weight, owner in _packed_away(model, names, plain, stored.modules):
        error, finding = _packed(owner, weight.parameter, weight.parameter, None, plain, cell)
        counts["packed weights"] += 1
        worst = max(worst, error)
        findings += [finding] if finding is not None else []
    if live and is_adapter(checkpoint):
        wrong, counts["adapter tensors"] = adapter_findings(model, checkpoint)
        findings += wrong
    evidence: dict[str, int | float | str] = {key: count for key, count in counts.items() if count}
    if counts["packed weights"]:
        evidence["largest error of a packed weight"] = f"{worst:.2g}"
    return Result("values", tuple(findings), evidence)


def _is_packed(named: NamedTensor, plain: Plain) -> bool:
    """Whether a tensor of the model is a weight in fewer bits; integers that the architecture has are none."""
    expected = plain.tensors[named.architecture or ""]
    return is_packed(named.tensor) or (expected.is_floating_point() and few_bits(dtype_of(named.tensor)))


def _packed_away(
    model: nn.Module, names: TensorNames, plain: Plain, known: Collection[str]
) -> Iterator[tuple[LinearWeight, nn.Module]]:
    """Linear weights without a tensor and the modules that hold them in another form, but for the `known`."""
    there = {named.architecture for named in names.tensors}
    for weight in plain.weights:
        away = weight.parameter not in there and weight.module not in known
        own = names.module_name(weight.module) if away else None
        module = model.get_submodule(own) if own is not None else None
        if module is not None and packing(module, weight.parameter.rpartition(".")[2], weight.elements) is not None:
            yield weight, module


def _packed(
    module: nn.Module, name: str, architecture: str, weight: torch.Tensor | None, plain: Plain, cell: Cell
) -> tuple[float, Finding | None]:
    """The relative error of a packed weight, and a finding if it is too large."""
    if weight is None:
        weight = weight_of(module, name.rpartition(".")[2])
    values, expected = dequantized(module, weight), plain.as_linear(architecture)
    if values is None:
        if weight is not None and has_packed_class(weight):
            return 0.0, Finding(name, "a scale beside the packed weight", "none", PACKED)
        kind = type(module).__name__
        return 0.0, Finding(name, "a packed weight that can be unpacked", f"a {kind} that nothing unpacks", UNREADABLE)
    if values.shape != expected.shape:
        return 0.0, Finding(name, f"shape {tuple(expected.shape)}", f"shape {tuple(values.shape)} unpacked", SHAPE)
    error = relative_error(values.float(), expected.float())
    allowed = plain.packing_error(architecture)
    if cell.quantization == "none" and architecture.rpartition(".")[0] in plain.unpacked:
        # The numbers of the checkpoint itself, unpacked in another order of operations.
        allowed = UNPACKED
    # Written so that a nan, which compares false to everything, is a finding.
    if not error <= allowed:
        wanted = f"the checkpoint's value, relative error at most {allowed:g} once unpacked"
        return error, Finding(name, wanted, f"relative error {error:.3g}", PACKED)
    off = (values.double() - expected.double()).flatten()
    shift, spread = float(off.mean()), float(off.std()) if off.numel() >= LEAST else float("inf")
    if abs(shift) > OFFSET * spread:
        wanted = "errors of rounding, as often up as down"
        return error, Finding(name, wanted, f"all of it off by {shift:.3g}, and rounding by {spread:.3g}", SHIFTED)
    return error, None


def _dense(named: NamedTensor, value: torch.Tensor, plain: Plain) -> Finding | None:
    name, architecture = named.name, named.architecture or ""
    expected, computed = plain.tensors[architecture], named.role == "buffer"
    if value.shape != expected.shape:
        return _slice(name, value, expected, plain.in_dtype(architecture))
    if same_values(value, expected, computed=computed):
        return None
    if architecture.rpartition(".")[0] in plain.unpacked and unpacked_alike(value, expected):
        return None
    # A class may compute a tensor that no checkpoint holds in the dtype of the load.
    base = plain.base(architecture)
    if base is not None:
        if is_merged(value, expected, expected - base):
            return None
        if same_values(value, base, computed=False):
            return Finding(name, "the base's value with the adapter merged into it", "the base's value", NOT_APPLIED)
        if (times := scale_of_change(value, expected, base)) is not None:
            wanted, actual = at_worst(value, expected)
            return Finding(name, wanted, f"{actual} (the adapter's change, times {times:.3g})", NOT_APPLIED)
    second = plain.in_dtype(architecture)
    if second is not None and same_values(value, second, computed=computed):
        return None
    wanted, actual = at_worst(value, expected)
    if not value.is_floating_point():
        return Finding(name, wanted, actual)
    others = {other: tensor for other, tensor in plain.tensors.items() if other != architecture}
    wrong = explain(value, expected.float(), buffer=computed, initial_spread=plain.spread, others=others)
    return Finding(name, wanted, f"{actual} ({wrong.what})", wrong.hint)


def _slice(name: str, value: torch.Tensor, *wholes: torch.Tensor | None) -> Finding | None:
    """A finding if a tensor of another shape is not this rank's part of one of `wholes`, the first in float32."""
    rank, size = rank_here(), size_here()
    first, _ = wholes
    assert first is not None
    fitting = [part for whole in wholes if whole is not None for part in slices_of_rank(whole, value.shape, rank, size)]
    if size == 1 or not fitting:
        return Finding(name, f"shape {tuple(first.shape)}", f"shape {tuple(value.shape)}", SHAPE)
    if any(same_values(value, part, computed=False) for part in fitting):
        return None
    wanted, actual = at_worst(value, fitting[0])
    other = (rank + 1) % size
    moved = any(same_values(value, part, computed=False) for part in slices_of_rank(first, value.shape, other, size))
    return Finding(name, f"part {rank} of {size}: {wanted}", f"{actual}{f' (part {other})' if moved else ''}")


def same_values(value: torch.Tensor, expected: torch.Tensor, *, computed: bool) -> bool:
    """Whether `value` equals `expected` up to one rounding of its dtype, or up to `COMPUTED` if it was `computed`."""
    import torch

    rounded = expected.to(value.dtype)
    if torch.equal(value, rounded):
        return True
    if not value.is_floating_point():
        return False
    limits = torch.finfo(value.dtype)
    actual, wanted = value.float(), expected.float()
    size = wanted.abs()
    # Below the smallest normal number, rounding errors are absolute.
    allowed = limits.eps * size + limits.tiny * limits.eps
    if computed:
        # The entries of a table of sines all have the absolute error of its largest ones.
        finite = size[size.isfinite()]
        allowed = torch.maximum(allowed, COMPUTED * size + COMPUTED / 10 * (finite.max() if finite.numel() else 0.0))
    return bool(((value == rounded) | ((actual - wanted).abs() <= allowed)).all())


def unpacked_alike(value: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether `value` is `expected`, unpacked in another order of operations or another dtype."""
    actual, wanted = value.float(), expected.float()
    return bool(((actual - wanted).abs() <= UNPACKED * (wanted.abs() + wanted.abs().mean())).all())


def at_worst(value: torch.Tensor, expected: torch.Tensor) -> tuple[str, str]:
    """The expected and the actual value where the two differ most, in words."""
    off = (value.float() - expected.float()).abs()
    place = int(off.nan_to_num(float("inf")).argmax())
    where = unravel_index(place, value.shape)
    return f"{float(expected.flatten()[place]):.6g} at {where}", f"{float(value.flatten()[place]):.6g}"


VALUES_CHECK: Final = Check(
    "values",
    lambda exam: check_values(exam.model, exam.checkpoint, exam.cell),
    (
        "parameters, packed weights and buffers have the values of a plain load: none rounded on the "
        "way, none left as it was initialised"
    ),
    "A weight is not the checkpoint's, or a buffer not what its class computes.",
    failure="numeric",
    after="dtypes",
)
