"""The check of what a target hands to its model: where it is, in which dtype, and whether it belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.batch_layout import ids_of, padding_findings
from pytest_llmdevice.checks.examination import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.running import minds_training
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.diagnosis.hints.state import TRAINING
from pytest_llmdevice.inference.generation_run import GenerationRun
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.device_map import embedding_device, execution_device, with_index
from pytest_llmdevice.model.wrappers import input_embedding
from pytest_llmdevice.monitoring.trace import Call, Trace, TracedTensor
from pytest_llmdevice.text import dtype_name

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

INTEGERS: Final = ("inputs", "input_ids", "input", "position_ids", "decoder_input_ids", "token_type_ids")

EMBEDDED: Final = ("inputs_embeds", "decoder_inputs_embeds")

ELSEWHERE: Final = ("labels", "encoder_outputs", "encoder_hidden_states")
"""What need not be beside the input embedding, or comes out of the model itself."""

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
    """What the target handed to its model while it generated is what the model needs.

    Every tensor is on the device that the input embedding runs on; ids and positions are integers, embedded inputs are
    in the model's dtype; masks fit their ids, hide the padding and nothing else; positions count tokens; nothing runs
    under an autocast to another dtype than the cell's; a cache is beside its layers and no coarser than they are.

    Args:
        generated: what was seen while the target generated.
        prompts: lists of token ids.
        model: the model.
        cell: what was asked for; without it, autocast is not looked at.
    """
    trace = generated.trace
    findings: dict[Finding, None] = {}
    batches: dict[object, Finding] = {}
    embedding = _embedding_name(model)
    embedded: torch.Tensor | None = None
    for call in trace.outer:
        for finding in (*_places(call, trace, model), *_kinds(call, trace, model), *_shapes(call)):
            findings[finding] = None
        if call.module and call.module == embedding:
            # What the target embeds itself: the ids of the embedded inputs that it hands over next.
            embedded = ids_of(call)
            continue
        following = [one for one in trace.calls if not one.outer and one.within == call.within]
        for finding in padding_findings(call, following, prompts, model, embedded):
            # One mistake shows in each batch; the first one is enough.
            batches.setdefault((finding.about, finding.hint), finding)
    findings.update(dict.fromkeys(batches.values()))
    for finding in (
        *_autocast(trace, model, cell),
        # Of a model that was moved, nobody knows any more where its layers computed.
        *(() if any(change.kind in {"model", "training"} for change in generated.changes) else _caches(trace, model)),
        *_coarse(trace, cell),
        *_training(trace, model),
        *_doubles(trace),
        *_warnings(trace),
    ):
        findings[finding] = None
    seen = bool(trace.modules or trace.calls or trace.compiled)
    if not seen and generated.error is None and generated.first is not None:
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


def _places(call: Call, trace: Trace, model: Any) -> Iterator[Finding]:
    if input_embedding(model) is None:
        return
    # Where it was, should the target have moved the model meanwhile.
    home = with_index(trace.embedding_device or embedding_device(model))
    for name, tensor in call.tensors.items():
        # A single number may stay on the CPU.
        if name.partition("[")[0] in ELSEWHERE or not tensor.shape:
            continue
        if with_index(tensor.device) != home:
            yield Finding(name, f"device {home}", f"device {with_index(tensor.device)}", generation.LEFT_BEHIND)


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
    """The dtype that the input embedding gives."""
    passage = trace.modules.get(_embedding_name(model) or "no module")
    if passage is not None and passage.outputs:
        return next(iter(passage.outputs.values())).dtype
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
    # `generate` is given the whole history or what is new; a static cache has a mask of all it can hold.
    fitting = {width + past} | ({width} if call.function == "generate" else set())
    columns = mask.shape[1]
    if mask.shape[0] not in {1, rows} or (columns not in fitting and not (past and columns > width + past)):
        wanted = f"shape ({rows}, {width + past})" + (f", {past} of them in the cache" if past else "")
        yield Finding("attention_mask", wanted, f"shape {tuple(mask.shape)}", generation.MASK_SHAPE)


def _autocast(trace: Trace, model: Any, cell: Cell | None) -> Iterator[Finding]:
    if cell is None:
        return
    home = embedding_device(model).type if input_embedding(model) is not None else cell.torch_device.type
    for (kind, dtype), name in trace.autocast.items():
        # What runs under an autocast to its own dtype computes in that dtype or better.
        if kind == home and dtype != cell.torch_dtype:
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
        passage = trace.modules.get(name)
        inputs = passage.inputs.values() if passage is not None else ()
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
        coarser = [one for one in computed.get(number, ()) if _coarser(dtype, one)]
        # Under an autocast, layers compute in its dtype and norms in float32; whether it may be is looked at already.
        if coarser and len(coarser) == len(computed[number]) and not trace.autocast:
            yield Finding(
                where, f"{dtype_name(coarser[0])}, as the layer computes", dtype_name(dtype), generation.CACHE
            )


def _coarse(trace: Trace, cell: Cell | None) -> Iterator[Finding]:
    """A history that went through a half. Kernels of packed weights compute in one, and their results are such too."""
    if cell is None or cell.dtype != "float32" or cell.quantization != "none" or trace.autocast:
        return
    for number, kind, half in trace.exact_halves:
        exact = f"float32 in which every number is one of {dtype_name(half)}: it went through it"
        yield Finding(f"cache, layer {number}, {kind}", "float32, as the layer computed it", exact, generation.CACHE)


def _coarser(dtype: torch.dtype, computed: torch.dtype) -> bool:
    import torch

    if not dtype.is_floating_point:
        # Quantized, on purpose.
        return False
    bits, own = torch.finfo(dtype).bits, torch.finfo(computed).bits
    return bits < own or (bits == own and dtype != computed)


def _training(trace: Trace, model: Any) -> Iterator[Finding]:
    """Parts that ran in training mode and are not in it otherwise: of those that are, the mode check says so."""
    modules = dict(model.named_modules())
    ran = [name for name in trace.training if name in modules and not modules[name].training]
    outermost = [name for name in ran if minds_training(type(modules[name]))]
    if outermost:
        where = f"{outermost[0] or 'the model'}, while the target generates"
        yield Finding(where, "eval mode", "training mode", TRAINING)


def _doubles(trace: Trace) -> Iterator[Finding]:
    import torch

    for name, passage in trace.modules.items():
        for path, tensor in (*passage.inputs.items(), *passage.outputs.items()):
            if tensor.dtype == torch.float64 and tensor.device.type in NO_FLOAT64:
                yield Finding(f"{name or 'the model'}, {path}", "a dtype that the device has", "float64")


def _warnings(trace: Trace) -> Iterator[Finding]:
    if any(ids_of(call) is not None for call in trace.outer):
        # Seen with their values: what a warning could say is known better.
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
    after="forward",
)
