"""Finds the module where what a model says begins to be other than in a plain load of the same cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmdevice.checks.module_outputs import first_apart
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis.divergence import ModuleOutput, first_difference, outputs_of
from pytest_llmdevice.diagnosis.replaced import replaced_methods
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.oracle.process import ask
from pytest_llmdevice.text import listed

SAME: Final = (
    "not found: for one short prompt without padding each module says the same as in a plain load; look at what the "
    "target hands to it, at padding, at long texts and at caches"
)

REPLACED: Final = (
    "not found: for one short prompt without padding each module says the same as in a plain load; these methods were "
    "replaced in this process: "
)
"""Begins the origin where a load has put other methods in the place of a model's."""


def origin_of(model: Any, checkpoint: str, cell: Cell, prompt: Sequence[int]) -> str:
    """The first module of `model` that says something else than in a plain load of `cell` on the cpu, in words.

    Two ways are gone: both models run by themselves, and modules are given what those of the plain load were given. The
    second finds what is too small to show in a run, or shows behind the module that is wrong; the first finds modules
    of another class, and works on every device.

    Args:
        model: the model under test.
        checkpoint: the local folder of what it should be.
        cell: what was asked for.
        prompt: token ids.
    """
    try:
        modules = TensorNames(model).modules
        plain = Cell(cell.model, "cpu", cell.dtype, cell.quantization)
        expected = ask(_plain_outputs, checkpoint, plain, tuple(prompt))
        apart, _ = first_apart(model, checkpoint, cell, prompt)
        found = first_difference(
            model,
            expected,
            lambda model: forward_logits(model, inputs_for(model, [prompt])),
            generation_tolerance(cell),
            lambda name: modules.get(name) or name,
        )
    except Exception as error:  # noqa: BLE001  # a search for the cause must not hide the finding it is for
        return f"not found, a comparison with a plain load was not possible: {first_line(error)}"
    order = {name: place for place, name in enumerate(expected)}
    if apart is not None and (
        found is None or order.get(apart.known, 0) < order[modules.get(found.module) or found.module]
    ):
        return str(apart)
    if found is not None:
        return str(found)
    replaced = replaced_methods(model)
    return f"{REPLACED}{listed(replaced)}" if replaced else SAME


def _plain_outputs(checkpoint: str, cell: Cell, prompt: tuple[int, ...]) -> Mapping[str, tuple[ModuleOutput, ...]]:
    return outputs_of(
        from_pretrained(checkpoint, cell), lambda model: forward_logits(model, inputs_for(model, [prompt]))
    )
