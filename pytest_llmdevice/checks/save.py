"""The check that a model can be saved and loaded again, and is the same then."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.examination import Check
from pytest_llmdevice.checks.noise import Inspection, Limits, gap, own_faults
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.saving import CHANGED, CONFIGURED, LOGITS, TENSORS, TIES
from pytest_llmdevice.inference.stepping import Stepper
from pytest_llmdevice.loading.quantization import layer_classes
from pytest_llmdevice.loading.save import is_adapted, saved_again, saved_dtype, unchanged
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.weights import is_packed
from pytest_llmdevice.model.wrappers import configuration_of, core
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.text import dtype_name

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.oracle.expectations import Expectations

Tokens = Sequence[Sequence[int]]

LARGEST: Final = 2**30
"""Bytes of parameters that are still written: a check must not fill somebody's disk."""


def check_save(model: Any, expectations: Expectations, cell: Cell, prompts: Tokens, checkpoint: str) -> Result:
    """`save_pretrained` into a temporary folder and a plain load from there keep dtypes, ties, packing and logits.

    The model itself is left as it was. Of a model with adapters only these are saved, and go onto a plain base. What a
    plain load of the same cell does not keep either (bitsandbytes' 4-bit weights, once they were run on some
    processors) is the library's matter. A module without `save_pretrained`, one that a plain load could not read, and
    one of more than `LARGEST` bytes is not saved, and the evidence says so.
    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    count = sum(1 for _ in model.parameters())
    if not callable(getattr(model, "save_pretrained", None)):
        return Result("save", evidence={"parameters": count, "saved": f"no: {type(model).__name__} has no way to"})
    if reason := _not_readable(model, expectations):
        return Result("save", evidence={"parameters": count, "saved": f"no: {reason}"})
    if size > LARGEST:
        return Result("save", evidence={"parameters": count, "saved": f"no: {size / 2**30:.1f} GiB"})
    inspect = partial(_inspect, expectations=expectations, cell=cell, prompts=prompts, checkpoint=checkpoint)
    findings, evidence = own_faults(inspect, model, cell, checkpoint, plain=BuiltinTarget().load, trusted=())
    return Result("save", tuple(findings), evidence)


def _not_readable(model: Any, expectations: Expectations) -> str:
    """Why a plain load could not read the files whatever they hold; empty where it could."""
    if is_adapted(model):
        return ""
    packed = any(type(module).__name__ in layer_classes() for module in model.modules())
    if packed and getattr(configuration_of(model), "quantization_config", None) is None:
        return "layers are packed, and the configuration has no quantization_config"
    offloaded = any(one.storage == "offloaded" for one in expectations.tensors)
    if offloaded and not getattr(core(model), "hf_device_map", None):
        return "offloaded without a map of devices, by which transformers finds the weights"
    renamed = next((one for one in expectations.tensors if one.name != one.architecture), None)
    if renamed is not None:
        return f"modules around the architecture's own, {renamed.name} is its {renamed.architecture}"
    return ""


def _inspect(model: Any, expectations: Expectations, cell: Cell, prompts: Tokens, checkpoint: str) -> Inspection:
    longest = max(prompts, key=len)
    feed = Stepper(model, longest)
    before, _ = feed(longest)
    findings: list[Finding] = []
    evidence: dict[str, int | float | str] = {"positions": len(before)}
    limits = Limits.of(cell)
    with tempfile.TemporaryDirectory(prefix="llmdevice-save-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with unchanged_process(), unchanged(model), warnings.catch_warnings():
            # Of offloaded weights, of what a quantizer does: no matter where the outcome is looked at.
            warnings.simplefilter("ignore")
            again = saved_again(model, checkpoint, cell, folder)
            evidence["files"] = sum(1 for path in folder.iterdir() if path.is_file())
            changed = gap(feed(longest)[0], before, limits)
            if not changed.within(limits):
                findings.append(
                    Finding("logits of the model after it was saved", "the same as before", str(changed), CHANGED)
                )
            if not is_adapted(model):
                findings += _configured(folder, cell)
                findings += _kept(model, again, expectations)
                findings += _ties(again, expectations)
            after, _ = Stepper(again, longest)(longest)
    evidence["tensors"] = sum(1 for _ in tensors(again))
    found = gap(after, before, limits)
    if not found.within(limits):
        expected = f"those of the model that was saved, relative error at most {limits.single:.2g}"
        findings.append(Finding("logits of the reloaded model", expected, str(found), LOGITS))
    return findings, evidence


def _configured(folder: Path, cell: Cell) -> list[Finding]:
    dtype = saved_dtype(folder)
    if dtype in {None, cell.dtype}:
        return []
    return [Finding("dtype in the saved config.json", cell.dtype, str(dtype), CONFIGURED)]


def _kept(model: nn.Module, again: nn.Module, expectations: Expectations) -> list[Finding]:
    """Tensors in another dtype than before, and modules that are packed in one of the two only.

    What is computed is in no file; and one that was wrong before and is right now is the other checks' finding.
    """
    now = {name: tensor for name, _, tensor in tensors(again)}
    right = {one.name: one.dtype for one in expectations.tensors}
    computed = {one.name for one in expectations.tensors if one.computed}
    findings = []
    for name, _, tensor in tensors(model):
        again_now = now.get(name, tensor)
        if is_packed(tensor) and is_packed(again_now):
            # What holds the packed numbers may be chosen, and the first forward pass may choose again.
            continue
        one, other = (dtype_name(found.dtype) for found in (tensor, again_now))
        if one != other and name not in computed and other != right.get(name):
            findings.append(Finding(f"{name}, reloaded", one, other, TENSORS))
    kinds = {name: type(module).__name__ for name, module in again.named_modules()}
    for name, module in model.named_modules():
        one, other = type(module).__name__, kinds.get(name, "nothing of that name")
        if one != other and layer_classes() & {one, other}:
            findings.append(Finding(f"{name}, reloaded", one, other, TENSORS))
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
    after="sampling",
)
