"""Tells fixtures that a project has overridden to give something else from those that test another cell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.matrix.ranks import of_rank
from pytest_llmdevice.monitoring.ranks import rank_here

if TYPE_CHECKING:
    from pytest_llmdevice.matrix.cell import Cell

_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".pt", ".pth"})


def other_cell(fixtures: Mapping[str, Any], cell: Cell) -> str:
    """What is wrong with the `fixtures` of a test of `cell`, in words; empty where they are about that cell.

    A target, a model, a tokenizer, prompts may be a project's own. The cell, its device and dtype, and the weights of
    its checkpoint are what the name of the test and its record say.
    """
    cell = of_rank(cell, rank_here())
    # Asked for only where there is such a fixture: a test that needs no torch must not import it.
    for name, attribute in (("llm_cell", ""), ("llm_device", "torch_device"), ("llm_dtype", "torch_dtype")):
        if name in fixtures and fixtures[name] != (getattr(cell, attribute) if attribute else cell):
            given = getattr(fixtures[name], "id", fixtures[name])
            return _refused(name, cell, f"gave {given}", "add that cell to the matrix, or select it with --llm-cell")
    for name in ("llm_loaded", "llm_examination"):
        given = getattr(fixtures.get(name), "cell", cell)
        if given != cell:
            return _refused(name, cell, f"is about {given.id}", "add that cell to the matrix")
    checkpoint = fixtures.get("llm_checkpoint")
    if checkpoint is not None and not _is_checkpoint_of(str(checkpoint), cell.model):
        other = f"gave {checkpoint}, which has other weights or another configuration than the model {cell.model}"
        return _refused("llm_checkpoint", cell, other, f"name it in the matrix as 'path:{checkpoint}'")
    return ""


def _refused(name: str, cell: Cell, what: str, instead: str) -> str:
    return (
        f"{cell.id}: the fixture {name} is overridden and {what}: the test would be recorded for a cell that it was "
        f"not run on; {instead}"
    )


def _is_checkpoint_of(folder: str, model: str) -> bool:
    from pytest_llmdevice.zoo import checkpoint

    own = str(checkpoint(model))
    if Path(folder) == Path(own):
        return True
    if not Path(folder).is_dir():
        return False
    return _content(fingerprint(folder)) == _content(fingerprint(own))


@lru_cache(maxsize=64)
def _content(print_of: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    """Digests of the configuration and the weights of the folder that a fingerprint is of."""
    folder = Path(str(print_of[0]))
    return tuple(
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
        if path.name == "config.json" or path.suffix in _WEIGHTS
    )
