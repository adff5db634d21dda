"""Checks that run the model: its mode, and a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import dtypes, state, values
from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.device_map import with_index
from pytest_llmdevice.model.settings import vocabulary_size
from pytest_llmdevice.model.wrappers import configuration_of, core_with_path
from pytest_llmdevice.oracle.expectations import execution_devices
from pytest_llmdevice.oracle.reference import logits_dtype

if TYPE_CHECKING:
    from torch import nn

Tokens = Sequence[Sequence[int]]


def check_mode(model: nn.Module) -> Result:
    """The model and all its modules are in evaluation mode.

    But for those that do the same in both: layers and containers that were put in after `eval()`
    (`resize_token_embeddings` does so), and a wrapper around a model that is in evaluation mode.
    """
    modules = dict(model.named_modules())
    training = in_training(model)
    # Of a whole that is in training mode, the parts need no mention.
    outermost = [name for name in training if not training & set(ancestors(name))]
    findings = [
        Finding(name or "the model", "eval mode", "training mode", state.TRAINING) for name in sorted(outermost)
    ]
    return Result("mode", tuple(findings), {"modules": len(modules)})


def ancestors(name: str) -> list[str]:
    """The names of all modules that the module `name` is in, the model's too."""
    parts = name.split(".") if name else []
    return [".".join(parts[:end]) for end in range(len(parts))]


def in_training(model: nn.Module) -> set[str]:
    """The names of the modules that are in training mode and may do something else because of it."""
    path, inner = core_with_path(model)
    around = set(ancestors(path))
    return {
        name
        for name, module in model.named_modules()
        if module.training and minds_training(type(module)) and (name not in around or inner.training)
    }


def minds_training(kind: type) -> bool:
    """Whether a method of the module class `kind`, or of one that it is made of, asks if it is in training mode."""
    from torch import nn

    owned = (found for base in kind.__mro__ if base not in {nn.Module, object} for found in vars(base).values())
    return any("training" in code.co_names for function in owned for code in _codes(function))


def _codes(function: object) -> Iterator[CodeType]:
    """The code of `function`, of what it decorates, and of what is defined in it."""
    while function is not None:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        pending = [code] if code is not None else []
        while pending:
            one = pending.pop()
            yield one
            pending += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
        function = getattr(function, "__wrapped__", None)


def check_forward(model: Any, cell: Cell, prompts: Tokens, checkpoint: str) -> Result:
    """A padded batch put beside the embedding gives finite logits of the cell's dtype on the head's device.

    A class that returns float32 logits whatever its dtype is may do so: a plain load of `checkpoint` tells.
    """
    inputs = inputs_for(model, prompts)
    try:
        logits = forward_logits(model, inputs)
    except DoesNotApply:
        # It knows no padding.
        inputs = inputs_for(model, [max(prompts, key=len)])
        logits = forward_logits(model, inputs)
    embedding, head = execution_devices(model)
    findings = []
    rows = len(inputs["input_ids"])
    vocabulary = vocabulary_size(configuration_of(model)) or logits.shape[-1]
    wanted_shape = (*inputs["input_ids"].shape, vocabulary)
    if tuple(logits.shape) != wanted_shape:
        findings.append(Finding("logits", f"shape {wanted_shape}", str(tuple(logits.shape))))
        return Result("forward", tuple(findings))
    # The root hook of a dispatched model returns the output to where the input came from.
    if with_index(logits.device) not in {embedding, head}:
        findings.append(Finding("logits", f"device {head}", with_index(logits.device)))
    dtype = dtype_name(logits.dtype)
    if dtype != cell.dtype and dtype != logits_dtype(checkpoint, cell.dtype):
        findings.append(Finding("logits", cell.dtype, dtype, dtypes.UPCAST))
    # Padding may hold anything; only what belongs to a prompt is looked at.
    real = logits[inputs["attention_mask"].bool().to(logits.device)]
    bad = int((~real.isfinite()).sum())
    if bad:
        findings.append(Finding("logits", "all finite", f"{bad} of {real.numel()} are inf or nan", values.NONFINITE))
    return Result("forward", tuple(findings), {"prompts": rows, "logits": real.numel()})


MODE_CHECK: Final = Check(
    "mode",
    lambda exam: check_mode(exam.model),
    "no module is in training mode",
    "Dropout or batch statistics are on while the model should only be used.",
    failure="loader",
    after="quantization",
)


FORWARD_CHECK: Final = Check(
    "forward",
    lambda exam: check_forward(exam.model, exam.cell, exam.prompts, exam.checkpoint),
    "a padded batch beside the embedding gives finite logits in the right dtype on the right device",
    "One forward pass fails, or its logits are not of the cell.",
    failure="numeric",
    origin=True,
    behaviour=True,
    after="mode",
)
