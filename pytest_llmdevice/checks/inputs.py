"""Checks the tensors that a target passes to its model: devices, dtypes, shapes, masks, positions and caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.batch_layout import padding_findings
from pytest_llmdevice.checks.call_tensors import ids_of
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.running import minds_training
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.diagnosis.hints.sequences import CACHE_DTYPE
from pytest_llmdevice.diagnosis.hints.state import TRAINING
from pytest_llmdevice.inference.generation_run import GenerationRun
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import embedding_device, execution_device, with_index
from pytest_llmdevice.model.wrappers import input_embedding, is_of_transformers
from pytest_llmdevice.monitoring.trace import Call, Trace, TracedTensor

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

INTEGERS: Final = ("inputs", "input_ids", "input", "position_ids", "decoder_input_ids", "token_type_ids")

EMBEDDED: Final = ("inputs_embeds", "decoder_inputs_embeds")

ELSEWHERE: Final = ("labels", "encoder_outputs", "encoder_hidden_states")
"""Arguments that need not be on the input embedding's device, or that the model computes itself."""

NO_FLOAT64: Final = frozenset(("mps",))

WARNED: Final = {
    "You are calling .generate() with the `input_ids` being on a device type different": (
        "inputs",
        "beside the model",
        "a warning that they are on another type of device",
        generation.LEFT_BEHIND,
    ),
}


def check_inputs(generated: GenerationRun, prompts: Tokens, model: Any, cell: Cell | None = None) -> Result:
    """Check the traced inputs of the model while the target generated.

    Every tensor must be on the device of the input embedding. Ids and positions must be integers, and embedded inputs
    must have the model's dtype. Masks must match their ids, and hide the padding and nothing else. Positions must
    count tokens. No module may run under autocast to another dtype than the cell's. A cache must be on the devices of
    its layers and have at least their precision.

    Args:
        generated: the recorded generation.
        prompts: token ids of each prompt.
        model: the model.
        cell: what was requested; without it autocast is not checked.
    """
    trace = generated.trace
    findings: dict[Finding, None] = {}
    batches: dict[object, Finding] = {}
    embedding = _embedding_name(model)
    embedded: torch.Tensor | None = None
    of_transformers = is_of_transformers(model)
    for call in trace.outer:
        # A generate of another class is an interface: it may take inputs from anywhere, and hand on what it makes.
        interface = call.function == "generate" and not of_transformers
        handed = next((inner for inner in _within(call, trace)), call) if interface else call
        for finding in (*_places(handed, trace, model), *_kinds(handed, trace, model), *_shapes(handed)):
            findings[finding] = None
        if call.module and call.module == embedding:
            # The target embeds these ids itself, and passes the embedded inputs in its next call.
            embedded = ids_of(call)
            continue
        following = _within(call, trace)
        for finding in padding_findings(call, following, prompts, model, embedded):
            # The same fault shows in every batch; one finding is enough.
            batches.setdefault((finding.about, finding.hint), finding)
    findings.update(dict.fromkeys(batches.values()))
    for finding in (
        *_autocast(trace, model, cell),
        # If the target has moved the model, it is unknown where its layers computed.
        *(() if any(change.kind in {"model", "training"} for change in generated.changes) else _caches(trace, model)),
        *_rounded_caches(trace, cell),
        *_training(trace, model),
        *_doubles(trace),
        *_warnings(trace),
    ):
        findings[finding] = None
    ran = bool(trace.modules or trace.calls or trace.compiled)
    if not ran and generated.error is None and generated.first is not None:
        findings[Finding("the model that load returned", "a call of it, or of a part of it", "none")] = None
    tensors = sum(len(call.tensors) for call in trace.outer)
    evidence: dict[str, int | float | str] = {
        "calls": len(trace.outer),
        "tensors": tensors,
        "modules": len(trace.modules),
    }
    if trace.compiled:
        evidence["compiled"] = 1
    return Result("inputs", tuple(findings), evidence)


def _within(call: Call, trace: Trace) -> list[Call]:
    """The calls that were made inside `call`."""
    return [inner for inner in trace.calls if not inner.outer and inner.within == call.within]


def _places(call: Call, trace: Trace, model: Any) -> Iterator[Finding]:
    if input_embedding(model) is None:
        return
    # The device before the first call, in case the target has moved the model since.
    device = with_index(trace.embedding_device or embedding_device(model))
    for name, tensor in call.tensors.items():
        # A tensor without dimensions may be on the CPU.
        if name.partition("[")[0] in ELSEWHERE or not tensor.shape:
            continue
        if with_index(tensor.device) != device:
            yield Finding(name, f"device {device}", f"device {with_index(tensor.device)}", generation.LEFT_BEHIND)


def _kinds(call: Call, trace: Trace, model: Any) -> Iterator[Finding]:
    for name, tensor in call.tensors.items():
        if name in INTEGERS and not tensor.integers:
            yield Finding(name, "integers", "floating-point numbers", generation.CAST)
        if name in EMBEDDED:
            wanted = _embedding_dtype(trace, model)
            if wanted is not None and tensor.dtype != wanted:
                yield Finding(name, dtype_name(wanted), dtype_name(tensor.dtype), generation.EMBEDDED)


def _embedding_name(model: Any) -> str | None:
    embedding = input_embedding(model)
    return next((name for name, module in model.named_modules() if module is embedding), None)


def _embedding_dtype(trace: Trace, model: Any) -> torch.dtype | None:
    """The dtype of the input embedding's output."""
    first_call = trace.modules.get(_embedding_name(model) or "no module")
    if first_call is not None and first_call.outputs:
        return next(iter(first_call.outputs.values())).dtype
    weight = getattr(input_embedding(model), "weight", None)
    return weight.dtype if weight is not None and weight.dtype.is_floating_point else None


def _shapes(call: Call) -> Iterator[Finding]:
    ids: TracedTensor | None = next(
        (call.tensors[name] for name in (*INTEGERS[:3], *EMBEDDED) if name in call.tensors), None
    )
    mask = call.tensors.get("attention_mask")
    if ids is None or mask is None or len(ids.shape) < 2 or len(mask.shape) != 2 or call.past is None:
        return
    (rows, width), past = ids.shape[:2], call.past
    # `generate` takes all tokens or only the new ones; a static cache has a mask of its full size.
    fitting = {width + past} | ({width} if call.function == "generate" else set())
    columns = mask.shape[1]
    if mask.shape[0] not in {1, rows} or (columns not in fitting and not (past and columns > width + past)):
        wanted = f"shape ({rows}, {width + past})" + (f", {past} of them in the cache" if past else "")
        yield Finding("attention_mask", wanted, f"shape {tuple(mask.shape)}", generation.MASK_SHAPE)


def _autocast(trace: Trace, model: Any, cell: Cell | None) -> Iterator[Finding]:
    if cell is None:
        return
    device = embedding_device(model).type if input_embedding(model) is not None else cell.torch_device.type
    for (kind, dtype), name in trace.autocast.items():
        # Autocast to the model's own dtype computes in that dtype or a more precise one.
        if kind == device and dtype != cell.torch_dtype:
            yield Finding(
                f"autocast, first seen at {name or 'the model'}",
                "off",
                f"on, to {dtype_name(dtype)}",
                generation.AUTOCAST,
            )


def _caches(trace: Trace, model: Any) -> Iterator[Finding]:
    places: dict[int, set[str]] = {}
    computed: dict[int, set[torch.dtype]] = {}
    for name, module in model.named_modules():
        number = getattr(module, "layer_idx", None)
        if not isinstance(number, int) or next(module.parameters(), None) is None:
            continue
        places.setdefault(number, set()).add(with_index(execution_device(module)))
        first_call = trace.modules.get(name)
        inputs = first_call.inputs.values() if first_call is not None else ()
        first = next((tensor.dtype for tensor in inputs if len(tensor.shape) == 3 and not tensor.integers), None)
        if first is not None:
            computed.setdefault(number, set()).add(first)
    for number, kind, device, dtype in trace.caches:
        where = f"cache, layer {number}, {kind}"
        wanted = places.get(number, set())
        if wanted and with_index(device) not in wanted and not trace.offloaded:
            yield Finding(
                where, f"device {' or '.join(sorted(wanted))}", f"device {with_index(device)}", generation.CACHE
            )
        coarser = [layer_dtype for layer_dtype in computed.get(number, ()) if _coarser(dtype, layer_dtype)]
        # Under autocast, layers compute in its dtype and norms in float32; autocast itself is checked elsewhere.
        if coarser and len(coarser) == len(computed[number]) and not trace.autocast:
            yield Finding(where, f"{dtype_name(coarser[0])}, as the layer computes", dtype_name(dtype), CACHE_DTYPE)


def _rounded_caches(trace: Trace, cell: Cell | None) -> Iterator[Finding]:
    """Find float32 caches that were rounded to 16 bits. Kernels of packed weights compute in 16 bits by design."""
    if cell is None or cell.dtype != "float32" or cell.quantization != "none" or trace.autocast:
        return
    for number, kind, half in trace.exact_halves:
        exact = f"float32 in which every number is one of {dtype_name(half)}: it went through it"
        yield Finding(f"cache, layer {number}, {kind}", "float32, as the layer computed it", exact, CACHE_DTYPE)


def _coarser(dtype: torch.dtype, computed: torch.dtype) -> bool:
    import torch

    if not dtype.is_floating_point:
        # A quantized cache is chosen on purpose.
        return False
    bits, own = torch.finfo(dtype).bits, torch.finfo(computed).bits
    return bits < own or (bits == own and dtype != computed)


def _training(trace: Trace, model: Any) -> Iterator[Finding]:
    """Find modules that ran in training mode only while the target generated; the mode check reports the others."""
    modules = dict(model.named_modules())
    ran = [name for name in trace.training if name in modules and not modules[name].training]
    outermost = [name for name in ran if minds_training(type(modules[name]))]
    if outermost:
        where = f"{outermost[0] or 'the model'}, while the target generates"
        yield Finding(where, "eval mode", "training mode", TRAINING)


def _doubles(trace: Trace) -> Iterator[Finding]:
    import torch

    for name, first_call in trace.modules.items():
        for path, tensor in (*first_call.inputs.items(), *first_call.outputs.items()):
            if tensor.dtype == torch.float64 and tensor.device.type in NO_FLOAT64:
                yield Finding(f"{name or 'the model'}, {path}", "a dtype that the device has", "float64")


def _warnings(trace: Trace) -> Iterator[Finding]:
    if any(ids_of(call) is not None for call in trace.outer):
        # The ids were traced with their values, which is more precise than a warning.
        return
    for text in trace.warnings:
        for start, (where, expected, actual, hint) in WARNED.items():
            if text.startswith(start):
                yield Finding(where, expected, actual, hint)
        if "right-padding was detected" in text:
            yield Finding("inputs", "padding on the left", "padding on the right", generation.RIGHT_PADDING)


INPUTS_CHECK: Final = Check(
    "inputs",
    lambda exam: check_inputs(exam.generated, exam.prompts, exam.model, exam.cell),
    (
        "what the target hands to the model while it generates: device, integer ids, masks that hide the"
        " padding, positions, autocast, training mode, the cache; also where transformers would move or "
        "repair it"
    ),
    (
        "The target hands something to its model that is on another device, of another dtype, or does "
        "not belong together."
    ),
    needs=("generation",),
    failure="placement",
    behaviour=True,
    after="forward",
)
