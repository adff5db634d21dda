"""Checks that a model can be saved and loaded again without a change."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.noise import Inspection, Limits, gap
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.saving import CHANGED, CONFIGURED, LOGITS, TENSORS, TIES
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.inference.stepping import Stepper
from pytest_llmdevice.loading.quantization import layer_classes, quantization_of
from pytest_llmdevice.loading.save import is_adapted, saved_again, saved_dtype, stored_otherwise, unchanged
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.doors import dtype_of, held_bytes, parts_of
from pytest_llmdevice.model.weights import is_packed
from pytest_llmdevice.model.wrappers import configuration_of, core
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.monitoring.ranks import own_folder, shared_folder, size_here

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.oracle.expectations import Expectations

Tokens = Sequence[Sequence[int]]

LARGEST: Final = 2**30
"""Up to this many bytes of parameters, a model is saved; larger ones might fill the user's disk."""


def check_save(model: Any, expectations: Expectations, cell: Cell, prompts: Tokens, checkpoint: str) -> Result:
    """Save the model to a temporary folder, load it from there, and compare dtypes, ties, packing and logits.

    The model itself must not change. For a model with adapters only these are saved, and loaded into a plain base
    model. The check does not apply to a model without `save_pretrained`, one whose files a plain load cannot read, and
    one of more than `LARGEST` bytes.

    Args:
        model: the model under test.
        expectations: what its tensors should be.
        cell: what was requested.
        prompts: token ids of each prompt.
        checkpoint: the local folder of the model.
    """
    if reason := _not_to_be_saved(model, expectations, cell):
        return Result("save", inapplicable=reason)
    findings, evidence = _inspect(model, expectations, cell, prompts, checkpoint)
    return Result("save", tuple(findings), evidence)


def _not_to_be_saved(model: Any, expectations: Expectations, cell: Cell) -> str:
    """Why `model` is not saved; empty where it is."""
    if not callable(getattr(model, "save_pretrained", None)):
        return f"{type(model).__name__} has no save_pretrained"
    if reason := quantization_of(cell).unsaved or _unserializable(model) or _not_readable(model, expectations):
        return reason
    size = sum(held_bytes(parameter) for parameter in model.parameters())
    return f"{size / 2**30:.1f} GiB are too many to be written beside the checkpoint" if size > LARGEST else ""


def _unserializable(model: Any) -> str:
    """Why transformers writes no files of the model, as its quantizer says; empty where it does, or there is none."""
    quantizer = getattr(core(model), "hf_quantizer", None)
    says = getattr(quantizer, "is_serializable", None)
    try:
        can = says() if callable(says) else says
    except Exception as error:  # noqa: BLE001  # then it cannot be asked either when the model is saved
        return f"{type(quantizer).__name__} cannot save it: {first_line(error)}"
    return f"{type(quantizer).__name__} of transformers writes no files of it" if can is False else ""


def _not_readable(model: Any, expectations: Expectations) -> str:
    """The reason why a plain load cannot read the model's files in any case; empty if it can."""
    if is_adapted(model):
        return ""
    packed = any(type(module).__name__ in layer_classes() for module in model.modules())
    if packed and getattr(configuration_of(model), "quantization_config", None) is None:
        return "layers are packed, and the configuration has no quantization_config"
    offloaded = any(expected.storage == "offloaded" for expected in expectations.tensors)
    if offloaded and not getattr(core(model), "hf_device_map", None):
        return "offloaded without a map of devices, by which transformers finds the weights"
    if size_here() > 1 and not _collects(model) and _is_cut(model, expectations):
        return "its weights were not cut by transformers, whose save_pretrained collects none of them"
    renamed = next((entry for entry in expectations.tensors if entry.name != entry.architecture), None)
    if renamed is not None:
        return f"modules around the architecture's own, {renamed.name} is its {renamed.architecture}"
    return ""


def _collects(model: Any) -> bool:
    """Whether transformers itself has cut the weights of `model` over several processes."""
    return bool(getattr(core(model), "is_distributed_loading_by_transformers", False))


def _is_cut(model: nn.Module, expectations: Expectations) -> bool:
    """Whether this process has only a part of some parameter."""
    whole = {expected.name: math.prod(expected.shape) for expected in expectations.tensors}
    return any(
        (sum(part.numel() for part in parts_of(tensor).values()) or tensor.numel()) < whole.get(name, 0)
        for name, _, tensor in tensors(model)
        if not is_packed(tensor)
    )


def _inspect(model: Any, expectations: Expectations, cell: Cell, prompts: Tokens, checkpoint: str) -> Inspection:
    longest = max(prompts, key=len)
    stepper = Stepper(model, longest)
    before, _ = stepper(longest)
    findings: list[Finding] = []
    evidence: dict[str, int | float | str] = {"positions": len(before)}
    limits = Limits.of(cell)
    # What transformers has cut it collects, and one rank writes; else each rank has the whole model, and writes it.
    together = size_here() > 1 and _collects(model)
    folders = shared_folder("llmdevice-save-") if together else own_folder("llmdevice-save-")
    with folders as folder, unchanged_process(), unchanged(model), warnings.catch_warnings():
        # Warnings about offloaded weights and quantizers do not matter, because the result is checked.
        warnings.simplefilter("ignore")
        again = saved_again(model, checkpoint, cell, folder)
        evidence["files"] = sum(1 for path in folder.iterdir() if path.is_file())
        changed = gap(stepper(longest)[0], before, limits)
        if not changed.within(limits):
            findings.append(
                Finding("logits of the model after it was saved", "the same as before", str(changed), CHANGED)
            )
        if not is_adapted(model):
            findings += _configured(folder, cell)
            findings += _kept(model, again, expectations)
            findings += _ties(again, expectations)
        after, _ = Stepper(again, longest)(longest)
        cause = TENSORS if stored_otherwise(folder, model) else LOGITS
    evidence["tensors"] = sum(1 for _ in tensors(again))
    difference = gap(after, before, limits)
    if not difference.within(limits):
        expected = f"those of the model that was saved, relative error at most {limits.single:.2g}"
        findings.append(Finding("logits of the reloaded model", expected, str(difference), cause))
    return findings, evidence


def _configured(folder: Path, cell: Cell) -> list[Finding]:
    dtype = saved_dtype(folder)
    if dtype in {None, cell.dtype}:
        return []
    return [Finding("dtype in the saved config.json", cell.dtype, str(dtype), CONFIGURED)]


def _kept(model: nn.Module, again: nn.Module, expectations: Expectations) -> list[Finding]:
    """Find tensors whose dtype changed, and modules that are packed in only one of the two models.

    Computed tensors are left out, because no file has them, and those whose dtype is right after the reload, because
    other checks report that it was wrong before.
    """
    now = {name: tensor for name, _, tensor in tensors(again)}
    right = {expected.name: expected.dtype for expected in expectations.tensors}
    computed = {expected.name for expected in expectations.tensors if expected.computed}
    findings = []
    for name, _, tensor in tensors(model):
        again_now = now.get(name, tensor)
        if is_packed(tensor) and is_packed(again_now):
            # The storage dtype of packed values is an option, and the first forward pass may change it.
            continue
        before, after = (dtype_name(dtype_of(found)) for found in (tensor, again_now))
        if before != after and name not in computed and after != right.get(name):
            findings.append(Finding(f"{name}, reloaded", before, after, TENSORS))
    kinds = {name: type(module).__name__ for name, module in again.named_modules()}
    for name, module in model.named_modules():
        before, after = type(module).__name__, kinds.get(name, "nothing of that name")
        if before != after and layer_classes() & {before, after}:
            findings.append(Finding(f"{name}, reloaded", before, after, TENSORS))
    return findings


def _ties(again: nn.Module, expectations: Expectations) -> list[Finding]:
    present = dict(again.named_parameters(remove_duplicate=False))
    findings: list[Finding] = []
    for first, *others in expectations.ties:
        findings += [
            Finding(f"{name}, reloaded", f"the same tensor as {first}", "a tensor of its own", TIES)
            for name in others
            if first in present and name in present and present[first] is not present[name]
        ]
    for embedding, head in expectations.untied:
        if embedding in present and head in present and present[embedding] is present[head]:
            findings.append(Finding(f"{head}, reloaded", "a tensor of its own", f"the tensor of {embedding}", TIES))
    return findings


SAVE_CHECK: Final = Check(
    "save",
    lambda exam: check_save(exam.model, exam.expectations, exam.cell, exam.prompts, exam.checkpoint),
    "`save_pretrained` and a plain load keep dtypes, ties, packing and logits",
    "Saved and loaded again, the model is another one.",
    failure="loader",
    behaviour=True,
    after="sampling",
)
