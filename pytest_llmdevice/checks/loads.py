"""Checks that what a target loaded is the checkpoint's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.config_values import overridden_settings
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import foreign, tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.loads import ATTENTION, HEADLESS, OTHER_MODEL, RENAMED, RESIZED
from pytest_llmdevice.loading.pretrained import configuration
from pytest_llmdevice.loading.target import CONTRACT
from pytest_llmdevice.matrix.cell import REFERENCE, Cell
from pytest_llmdevice.model.doors import dtype_of
from pytest_llmdevice.model.settings import setting, vocabulary_size
from pytest_llmdevice.model.wrappers import configuration_of, core
from pytest_llmdevice.oracle.expectations import Expectations
from pytest_llmdevice.oracle.plain_load import plain_skeleton

if TYPE_CHECKING:
    from torch import nn

SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")


def check_loads(model: nn.Module, expectations: Expectations, checkpoint: str, cell: Cell | None = None) -> Result:
    """The model is of the checkpoint's architecture and settings, has its tensors in their shapes, and as many of them.

    A vocabulary that was made larger, for a padding token, is no harm; one that was made smaller is. The attention
    implementation is looked at where `cell` names one.
    """
    named = {name: tensor for name, _, tensor in tensors(model)}
    evidence = {"parameters": sum(1 for _ in model.parameters())}
    stored = configuration(checkpoint)
    own = configuration_of(model)
    wanted = f"{expectations.architecture}, as in the checkpoint ({stored.model_type})"
    details = f"what load returns: {CONTRACT}"
    kind = getattr(own, "model_type", None)
    actual = f"{type(core(model)).__name__} ({kind})" if kind else type(core(model)).__name__
    lacking = foreign(expectations, named)
    if lacking is not None and lacking.hint is RENAMED:
        return Result("loads", (lacking,), evidence, details=details)
    if (kind is not None and kind != stored.model_type and not _same(expectations, named)) or lacking:
        why = f"{actual}; {lacking.actual}" if lacking else actual
        return Result("loads", (Finding("the model", wanted, why, OTHER_MODEL),), evidence, details=details)
    missing = [
        expected.name
        for expected in expectations.tensors
        if expected.role == "parameter" and expected.name not in named and not expected.away
    ]
    if type(core(model)).__name__ != expectations.architecture and missing:
        return Result(
            "loads",
            (Finding("the model", wanted, f"{actual}, which has no {missing[0]}", HEADLESS),),
            evidence,
            details=details,
        )
    findings = [
        Finding(f"config.{size}", str(asked), str(found), RESIZED)
        for size in SIZES
        if (asked := setting(stored, size)) is not None
        and (found := setting(own, size)) is not None
        and (found < asked if size == "vocab_size" else found != asked)
    ]
    findings += _shapes(expectations, named, stored)
    # What has other shapes was made from another configuration as a whole.
    findings += [] if findings else overridden_settings(model, plain_skeleton(checkpoint, cell or REFERENCE))
    attention = getattr(own, "_attn_implementation", None)
    if cell is not None and cell.attention != "default" and attention is not None and attention != cell.attention:
        findings.append(Finding("attention implementation", cell.attention, str(attention), ATTENTION))
    return Result("loads", tuple(findings), evidence)


def _same(expectations: Expectations, named: dict[str, Any]) -> bool:
    """Whether all tensors are there: a class of one's own with a configuration of its own, and the same model."""
    return all(expected.name in named for expected in expectations.tensors)


def _shapes(expectations: Expectations, named: dict[str, Any], config: Any) -> list[Finding]:
    vocabulary = vocabulary_size(config)
    findings = []
    for expected in expectations.tensors:
        tensor = named.get(expected.name)
        # Packed weights, and those that wait elsewhere in another form, are not in the layer's shape.
        if tensor is None or not dtype_of(tensor).is_floating_point or expected.storage == "packed":
            continue
        if expected.other:
            # As a part of another tensor, or turned; its values are compared.
            continue
        shape = tuple(tensor.shape)
        of_tokens = vocabulary is not None and expected.shape[:1] == (vocabulary,)
        grown = of_tokens and shape[:1] > expected.shape[:1] and shape[1:] == expected.shape[1:]
        if shape != expected.shape and not grown:
            wanted = " x ".join(map(str, expected.shape)) or "a number"
            findings.append(Finding(expected.name, wanted, " x ".join(map(str, shape)) or "a number", RESIZED))
    return findings


LOADS_CHECK: Final = Check(
    "loads",
    lambda exam: check_loads(exam.model, exam.expectations, exam.checkpoint, exam.cell),
    (
        "the target loads it: the checkpoint's architecture, with its head, shapes and the settings that"
        " enter the arithmetic"
    ),
    "The target did not load the cell, or gave another model than the checkpoint's.",
    failure="loader",
)
