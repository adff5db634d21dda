"""Checks that weights were really quantized: classes, storage, exclusions and share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.packed import packed_problems
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import quantization as hints
from pytest_llmdevice.loading.quantization import layer_classes, quantization_of
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DENSE, dtype_name
from pytest_llmdevice.model.doors import class_names, dtype_of
from pytest_llmdevice.model.dtypes import intended_dtype
from pytest_llmdevice.model.packing import Packing, packing, weight_of
from pytest_llmdevice.model.wrappers import configuration_of, core, wrapped_child
from pytest_llmdevice.oracle.expectations import Expectations
from pytest_llmdevice.oracle.linear_weights import LinearWeight

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_llmdevice.diagnosis import Hint


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
    packed_elements, packed_modules = 0, set()
    for weight in expectations.weights:
        module = modules.get(weight.module)
        if module is None:
            findings.append(Finding(weight.module, "a module", "nothing of that name"))
            continue
        found = packing(module, weight.parameter.rpartition(".")[2], weight.elements)
        # As it is in the checkpoint, or unpacked while loading: who asks for nothing has nothing against either.
        if not (cell.quantization == "none" and weight.module in expectations.stored):
            asked = replace(cell, quantization=weight.quantization) if weight.quantized else cell
            findings += _weight(weight, module, found, asked, model)
        if found is not None:
            packed_elements += weight.elements
            packed_modules.add(weight.module)
    # PEFT's layers around packed ones are called like those.
    own = {name: type(module).__name__ for name, module in modules.items() if wrapped_child(module) is None}
    stray = [name for name, kind in own.items() if kind in layer_classes() and name not in expectations.stored]
    if cell.quantization == "none":
        known = {finding.where for finding in findings}
        findings += [Finding(name, "a dense layer", own[name], hints.UNASKED) for name in stray if name not in known]
    findings += _embeddings(modules, {name: own[name] for name in own if name not in packed_modules})
    if cell.quantization != "none":
        # A declaration that says nothing any more would hide what comes back under another name.
        named = dict(quantization_of(cell).modules)
        for pattern in expectations.unknown:
            kind = named.get(pattern, DENSE).replace(DENSE, "dense")
            findings.append(Finding(f"{pattern!r}, declared {kind}", "a linear layer of that name", "none"))
    if not findings and not expectations.stored:
        findings += _configured(configuration_of(model), cell)
    total = sum(weight.elements for weight in expectations.weights)
    evidence: dict[str, int | float | str] = {
        "linear weights": sum(not weight.expert for weight in expectations.weights),
        "expert weights": sum(weight.expert for weight in expectations.weights),
        "quantized modules": len({*stray, *packed_modules}),
        "share of elements quantized": f"{packed_elements / total:.0%}" if total else "none",
    }
    if expectations.stored:
        evidence["packed in the checkpoint"] = len(expectations.stored)
    asked_for = cell.quantization != "none" and bool(expectations.weights)
    if asked_for and not findings and not any(weight.quantized for weight in expectations.weights):
        why = f"{expectations.architecture} has no layer that {cell.quantization} is to pack, and none is packed"
        return Result("quantization", evidence=evidence, inapplicable=why)
    return Result("quantization", tuple(findings), evidence)


def _weight(weight: LinearWeight, module: Any, found: Packing | None, cell: Cell, model: nn.Module) -> list[Finding]:
    """What is wrong with one weight of `model`, which is packed as `found` says, or dense.

    `cell` asks for the quantization that it is to have.
    """
    kind, wrapped = type(module).__name__, type(module).__name__ in layer_classes()
    key = weight.parameter.rpartition(".")[2]
    parameter = weight_of(module, key)
    dtype = dtype_name(dtype_of(parameter)) if parameter is not None else "nothing"
    actual = str(found) if found is not None else f"{kind} with {dtype}"
    if not weight.quantized:
        if found is None and not wrapped:
            return []
        hint = hints.WRAPPED if found is None else _stray(found, cell, wrapped=wrapped)
        return [Finding(weight.module, "dense: not to be quantized", actual, hint)]
    if weight.expert:
        if found is not None:
            # Experts keep the class of their module.
            entry = quantization_of(cell)
            own = entry.packed(parameter) if parameter is not None else None
            right = own if own is not None else found.dtype == entry.storage_dtype
            if right:
                return list(packed_problems(weight.module, module, cell, key, _computing_dtype(model, weight, cell)))
            return [Finding(weight.parameter, f"quantized to {cell.quantization}", actual, hints.DROPPED)]
        shape = "x".join(map(str, parameter.shape)) if parameter is not None else "missing"
        wanted = f"quantized to {cell.quantization}"
        return [Finding(weight.parameter, wanted, f"dense {dtype} {shape}", hints.EXPERTS)]
    entry = quantization_of(cell)
    if found is None or not _is_of(entry, found, parameter, module):
        hint = hints.DROPPED
        if (found is not None) != wrapped and (wrapped or entry.layer_class):
            hint = hints.WRAPPED if found is None else hints.PLAIN
        return [Finding(weight.module, entry.form, actual, hint)]
    return list(packed_problems(weight.module, module, cell, key, _computing_dtype(model, weight, cell)))


def _computing_dtype(model: nn.Module, weight: LinearWeight, cell: Cell) -> str:
    """The dtype that a packed weight is to compute in: the cell's, or float32 where the class of the model keeps it."""
    wanted = cell.torch_dtype
    return dtype_name(intended_dtype(core(model), weight.parameter, wanted, wanted, cell.quantization))


def _stray(found: Packing, cell: Cell, *, wrapped: bool) -> Hint:
    """Why a weight may be packed that is to be dense."""
    if cell.quantization == "none":
        return hints.UNASKED
    return hints.EXCLUDED if wrapped or found.tensor or found.layer not in {"Linear", "Conv1D"} else hints.PLAIN


def _is_of(entry: Quantization, found: Packing, weight: torch.Tensor | None, module: nn.Module) -> bool:
    """Whether a weight is packed as `entry` does it; some store packed numbers in any dtype and know them otherwise."""
    from torch import nn

    # A library's embeddings have a class of their own.
    if entry.layer_class and found.layer != entry.layer_class and not isinstance(module, nn.Embedding):
        return False
    # A card may have a class of its own, which derives from it.
    if entry.parameter_class and entry.parameter_class not in {found.tensor, *class_names(weight)}:
        return False
    own = entry.packed(weight) if weight is not None else None
    return own if own is not None else found.dtype == entry.storage_dtype


def _embeddings(modules: Mapping[str, nn.Module], own: Mapping[str, str]) -> Iterator[Finding]:
    """Embeddings that are packed: by a class of theirs, or whatever holds them."""
    from torch import nn

    known = {kind for entry in current().of(Quantization).values() for kind in entry.embeddings}
    for name, kind in own.items():
        module = modules[name]
        found = None
        if isinstance(module, nn.Embedding) and kind not in known:
            found = packing(module, "weight", module.num_embeddings * module.embedding_dim)
        if found is not None or kind in known:
            yield Finding(name, "a dense embedding", str(found or kind), hints.EMBEDDING)


def _configured(config: Any, cell: Cell) -> Iterator[Finding]:
    """What `config.quantization_config` says otherwise than the cell. A model that was packed by hand has none.

    Where several quantizations are mixed, it may speak of any one of them.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return
    said = found if isinstance(found, Mapping) else vars(found)
    asked = [replace(cell, quantization=name) for name in quantization_of(cell).members]
    # Entries of one library share what reads its configuration.
    for configured in dict.fromkeys(entry.configured for entry in current().of(Quantization).values()):
        problems = [tuple(configured(said, each)) for each in asked]
        for problem in problems[0] if all(problems) else ():
            yield Finding(problem.where, problem.expected, problem.actual, hints.CONFIG)


QUANTIZATION_CHECK: Final = Check(
    "quantization",
    lambda exam: check_quantization(exam.model, exam.expectations, exam.cell),
    ("classes, storage, compute dtype, exclusions; the share of the linear and expert weights that is packed"),
    "Weights that should be quantized are dense, or the other way round.",
    failure="dtype",
    after="tied",
)
