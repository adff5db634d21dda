"""The check that quantization was really done: classes, storage, compute dtype, exclusions and share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.result import Finding, Result
from pytest_llmdevice.loading.plan import LinearWeight, Plan
from pytest_llmdevice.loading.quantization import LAYER_CLASS, STORAGE_DTYPE
from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from torch import nn

DROPPED: Final = "the quantization config did not arrive, was dropped on this device, or skipped this module"
COMPUTE: Final = "bnb_4bit_compute_dtype is float32 unless it is given"
EXPERTS: Final = (
    "the experts are one 3-D parameter, not nn.Linear modules, and bitsandbytes replaces only nn.Linear: most of "
    "the model's weights stay dense"
)
EXCLUDED: Final = "giving llm_int8_skip_modules replaces the default exclusion of the head"
PACKED_CLASSES: Final = frozenset(LAYER_CLASS.values())


def check_quantization(model: nn.Module, plan: Plan, cell: Cell) -> Result:
    """Each weight is packed, or left dense, as the cell asks; nothing is half done.

    The evidence holds the share of the linear and expert weights that is packed, by number of elements.
    """
    modules = dict(model.named_modules())
    findings: list[Finding] = []
    packed_elements = 0
    for weight in plan.weights:
        module = modules.get(weight.module)
        if module is None:
            findings.append(Finding(weight.module, "a module", "nothing of that name"))
            continue
        problems, packed = _weight(weight, module, cell)
        findings += problems
        packed_elements += weight.elements if packed else 0
    stray = [name for name, module in modules.items() if type(module).__name__ in PACKED_CLASSES]
    if cell.quantization == "none":
        known = {finding.where for finding in findings}
        findings += [
            Finding(name, "a dense layer", type(modules[name]).__name__, EXCLUDED)
            for name in stray
            if name not in known
        ]
    total = sum(weight.elements for weight in plan.weights)
    evidence: dict[str, int | float | str] = {
        "linear weights": sum(not weight.expert for weight in plan.weights),
        "expert weights": sum(weight.expert for weight in plan.weights),
        "quantized modules": len(stray),
        "share of elements quantized": f"{packed_elements / total:.0%}" if total else "none",
    }
    return Result("quantization", tuple(findings), evidence)


def _weight(weight: LinearWeight, module: Any, cell: Cell) -> tuple[list[Finding], bool]:
    """What is wrong with one weight, and whether it is packed."""
    parameter = getattr(module, weight.parameter.rpartition(".")[2], None)
    kind = type(module).__name__
    dtype = str(getattr(parameter, "dtype", "nothing")).removeprefix("torch.")
    packed = dtype in set(STORAGE_DTYPE.values())
    if not weight.quantized:
        if packed or kind in PACKED_CLASSES:
            return [Finding(weight.module, "dense: not to be quantized", f"{kind} with {dtype}", EXCLUDED)], packed
        return [], packed
    if weight.expert:
        if not packed:
            shape = "x".join(map(str, parameter.shape)) if parameter is not None else "missing"
            wanted = f"quantized to {cell.quantization}"
            return [Finding(weight.parameter, wanted, f"dense {dtype} {shape}", EXPERTS)], packed
        return [], packed
    layer = (LAYER_CLASS[cell.quantization], STORAGE_DTYPE[cell.quantization])
    if (kind, dtype) != layer:
        return [Finding(weight.module, " with ".join(layer), f"{kind} with {dtype}", DROPPED)], packed
    return _details(weight.module, module, cell), packed


def _details(name: str, module: Any, cell: Cell) -> list[Finding]:
    if cell.quantization == "int8":
        state = getattr(module, "state", None)
        has_fp16 = bool(getattr(state, "has_fp16_weights", False))
        return [Finding(name, "int8 weights kept", "has_fp16_weights: weights are kept in half")] if has_fp16 else []
    findings = []
    compute = str(getattr(module, "compute_dtype", None)).removeprefix("torch.")
    if compute != cell.dtype:
        findings.append(Finding(name, f"compute dtype {cell.dtype}", compute, COMPUTE))
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        return [*findings, Finding(name, "a quantization state beside the weight", "none", DROPPED)]
    if state.quant_type != cell.quantization.removesuffix("-double"):
        findings.append(Finding(name, cell.quantization, str(state.quant_type), DROPPED))
    if bool(state.nested) != cell.quantization.endswith("-double"):
        wanted = "single quantization" if state.nested else "double quantization"
        findings.append(Finding(name, wanted, f"nested={state.nested}", DROPPED))
    if state.absmax is not None and state.absmax.device != module.weight.device:
        findings.append(Finding(f"{name}.quant_state", str(module.weight.device), str(state.absmax.device)))
    return findings
