"""Makes dense checkpoints of those that are quantized by themselves, for models that were unpacked while loading.

A loader may keep such weights packed or unpack them, and both are right. What a model says differs: some packed layers
round their inputs too. Whoever unpacked is held against a checkpoint with the numbers that the library unpacks, and
needs no other treatment than a dense model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.adapters import is_adapter
from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.stored_packed import stored_method, stored_packed, unpacked_load
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.packing import holds_packed
from pytest_llmdevice.oracle.linear_weights import linear_weights
from pytest_llmdevice.oracle.maker import maker_of
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    from torch import nn

NOTE: Final = "unpacked.json"
"""The file in which such a folder says what was unpacked, and in which dtype."""

MADE: Final = 2
"""Counts up when such a folder is made otherwise, so that older ones are not used."""


def is_unpacked(model: nn.Module, checkpoint: str) -> bool:
    """Whether the files of `checkpoint` hold packed weights, and `model` has none."""
    return not is_adapter(checkpoint) and bool(stored_method(checkpoint)) and not holds_packed(model)


def unpacked_checkpoint(checkpoint: str, root: Path | None) -> str:
    """The folder of a checkpoint with the numbers of `checkpoint`, dense and in float32.

    Args:
        checkpoint: a local folder whose files hold packed weights.
        root: where such folders are kept for the next time; without it, until this process ends.

    Raises:
        OracleError: the process that makes it cannot be had.
        Exception: what a plain load of `checkpoint` raises.
    """
    if root is None:
        return _for_now(fingerprint(checkpoint), checkpoint)
    from filelock import FileLock

    identity = json.dumps([*fingerprint(checkpoint), maker_of(checkpoint), MADE])
    folder = root / f"unpacked-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _for_now(fingerprint(checkpoint), checkpoint)
    if not os.access(root, os.W_OK):
        return _for_now(fingerprint(checkpoint), checkpoint)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / NOTE).is_file():
            ask(_make, checkpoint, str(folder))
    return str(folder)


_folders: list[Any] = []


@lru_cache(maxsize=8)
def _for_now(_print: tuple[object, ...], checkpoint: str) -> str:
    kept = tempfile.TemporaryDirectory(prefix="llmdevice-unpacked-")
    _folders.append(kept)
    ask(_make, checkpoint, kept.name)
    return kept.name


def _make(checkpoint: str, folder: str) -> None:
    model, dtype = unpacked_load(checkpoint, "float32")
    weights = linear_weights(model, Cell("plain", "cpu", "float32"))
    made: Any = model
    made.save_pretrained(folder)
    for path in Path(checkpoint).iterdir():
        # The tokenizer and what else lies beside the weights.
        if path.is_file() and path.suffix != ".safetensors" and not (Path(folder) / path.name).exists():
            shutil.copyfile(path, Path(folder) / path.name)
    note = {"dtype": dtype, "modules": sorted(stored_packed(checkpoint, [weight.module for weight in weights]))}
    (Path(folder) / NOTE).write_text(json.dumps(note), encoding="utf-8")


def unpacked_in(checkpoint: str) -> str:
    """The dtype in which the numbers of a folder of `unpacked_checkpoint` were made; empty for every other folder."""
    return str(_note(checkpoint).get("dtype", ""))


def unpacked_modules(checkpoint: str) -> frozenset[str]:
    """The modules whose weights a folder of `unpacked_checkpoint` has unpacked; none for every other folder."""
    return frozenset(_note(checkpoint).get("modules", ()))


def _note(checkpoint: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(checkpoint) / NOTE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
