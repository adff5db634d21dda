"""Checks that weights were really quantized: classes, storage, exclusions and share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.packed import packed_problems
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import quantization as hints
from pytest_llmdevice.loading.quantization import layer_classes, quantization_of, storage_dtypes
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.weights import is_packed
from pytest_llmdevice.model.wrappers import configuration_of, wrapped_child
from pytest_llmdevice.oracle.expectations import Expectations
from pytest_llmdevice.oracle.linear_weights import LinearWeight

if TYPE_CHECKING:
    from torch import nn

EMBEDDING_CLASSES: Final = frozenset({"Embedding4bit", "Embedding8bit", "EmbeddingFP4", "EmbeddingNF4"})


def check_quantization(model: nn.Module, expectations: Expectations, cell: Cell) -> Result:
    """Each weight is packed, or left dense, as the cell asks; nothing is half done, and the configuration says so.

    The evidence holds the share of the linear and expert weights that is packed, by number of elements.
    """
    modules = dict(model.named_modules())
    lacking = [weight.module for weight in expectations.weights if weight.module not in modules]
    if len(lacking) > 3 and 2 * len(lacking) > len(expectations.weights):
        actual = f"{len(lacking)} of {len(expectations.weights)} are not there, the first one being {lacking[0]}"
        another = foreign(expectations, {name: tensor for name, _, tensor in tensors(model)})
        hint = another.hint if another is not None else None
        finding = Finding("the model", "the linear layers of the checkpoint's architecture", actual, hint)
        return Result("quantization", (finding,))
    findings: list[Finding] = []
    packed_elements = 0
    for weight in expectations.weights:
        module = modules.get(weight.module)
        if module is None:
            findings.append(Finding(weight.module, "a module", "nothing of that name"))
            continue
        problems, packed = _weight(weight, module, cell)
        findings += problems
        packed_elements += weight.elements if packed else 0
    # PEFT's layers around packed ones are called like those.
    own = {name: type(module).__name__ for name, module in modules.items() if wrapped_child(module) is None}
    stray = [name for name, kind in own.items() if kind in layer_classes()]
    if cell.quantization == "none":
        known = {finding.where for finding in findings}
        findings += [Finding(name, "a dense layer", own[name], hints.EXCLUDED) for name in stray if name not in known]
    findings += [
        Finding(name, "a dense embedding", kind, hints.EMBEDDING)
        for name, kind in own.items()
        if kind in EMBEDDING_CLASSES
    ]
    if cell.quantization != "none":
        # A declaration that says nothing any more would hide what comes back under another name.
        findings += [
            Finding(f"{pattern!r}, declared dense", "a linear layer of that name", "none")
            for pattern in expectations.unknown
        ]
    if not findings:
        findings += _configured(configuration_of(model), cell)
    total = sum(weight.elements for weight in expectations.weights)
    evidence: dict[str, int | float | str] = {
        "linear weights": sum(not weight.expert for weight in expectations.weights),
        "expert weights": sum(weight.expert for weight in expectations.weights),
        "quantized modules": len(stray),
        "share of elements quantized": f"{packed_elements / total:.0%}" if total else "none",
    }
    return Result("quantization", tuple(findings), evidence)


def _weight(weight: LinearWeight, module: Any, cell: Cell) -> tuple[list[Finding], bool]:
    """What is wrong with one weight, and whether it is packed."""
    parameter = getattr(module, weight.parameter.rpartition(".")[2], None)
    kind = type(module).__name__
    dtype = dtype_name(getattr(parameter, "dtype", "nothing"))
    # `bnb_4bit_quant_storage` chooses the dtype that holds the packed numbers; FSDP needs the model's own.
    stored = parameter is not None and is_packed(parameter)
    packed = stored or dtype in storage_dtypes()
    if not weight.quantized:
        if packed or kind in layer_classes():
            hint = hints.WRAPPED if not packed else hints.EXCLUDED if kind in layer_classes() else hints.PLAIN
            return [Finding(weight.module, "dense: not to be quantized", f"{kind} with {dtype}", hint)], packed
        return [], packed
    if weight.expert:
        if not packed:
            shape = "x".join(map(str, parameter.shape)) if parameter is not None else "missing"
            wanted = f"quantized to {cell.quantization}"
            return [Finding(weight.parameter, wanted, f"dense {dtype} {shape}", hints.EXPERTS)], packed
        return [], packed
    entry = quantization_of(cell)
    layer = (entry.layer_class, entry.storage_dtype)
    if kind != layer[0] or (dtype != layer[1] and not (stored and cell.quantization != "int8")):
        hint = hints.DROPPED
        if packed != (kind in layer_classes()):
            hint = hints.PLAIN if packed else hints.WRAPPED
        return [Finding(weight.module, " with ".join(layer), f"{kind} with {dtype}", hint)], packed
    return list(packed_problems(weight.module, module, cell)), packed


def _configured(config: Any, cell: Cell) -> Iterator[Finding]:
    """What `config.quantization_config` says otherwise than the cell. A model that was packed by hand has none."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return
    said = found if isinstance(found, Mapping) else vars(found)
    eight = bool(said.get("load_in_8bit", said.get("_load_in_8bit")))
    four = bool(said.get("load_in_4bit", said.get("_load_in_4bit")))
    if not (eight or four):
        return
    kind = "int8" if eight else str(said.get("bnb_4bit_quant_type", "fp4"))
    kind += "-double" if four and said.get("bnb_4bit_use_double_quant") else ""
    if kind != cell.quantization:
        yield Finding("config.quantization_config", f"quantization {cell.quantization}", kind, hints.CONFIG)
    compute = dtype_name(said.get("bnb_4bit_compute_dtype") or cell.dtype)
    if four and compute != cell.dtype:
        yield Finding("config.quantization_config", f"compute dtype {cell.dtype}", compute, hints.CONFIG)


QUANTIZATION_CHECK: Final = Check(
    "quantization",
    lambda exam: check_quantization(exam.model, exam.expectations, exam.cell),
    ("classes, storage, compute dtype, exclusions; the share of the linear and expert weights that is packed"),
    "Weights that should be quantized are dense, or the other way round.",
    failure="dtype",
    after="tied",
)
