"""Asks a target what its model should be, where that is not the checkpoint as it is."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.model.own import member

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target
    from pytest_llmdevice.matrix.cell import Cell


class Keeper:
    """Keeps a folder on disk for as long as it lives."""


def expected_folder(target: Target, checkpoint: str, cell: Cell) -> tuple[str, object]:
    """The folder of what `target` should load for `cell`, and what keeps that folder; `checkpoint` by default.

    A model that the target gives is saved into a folder that is removed with the second value.

    Raises:
        ConfigurationError: its `expected` gives neither a folder of a checkpoint nor a model that can be saved.
        Exception: what `expected` or `save_pretrained` raises.
    """
    function = member(target, "expected")
    if function is None:
        return checkpoint, None
    said: Any = function(checkpoint, cell)
    if isinstance(said, (str, Path)):
        if not any((Path(said) / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ConfigurationError(f"the target's expected gave {str(said)!r}, which is no folder of a checkpoint")
        return str(said), None
    if not callable(getattr(said, "save_pretrained", None)):
        raise ConfigurationError(
            f"the target's expected gave {type(said).__name__}: it gives the folder of a checkpoint, or a model of "
            "transformers or PEFT"
        )
    folder, keeper = tempfile.mkdtemp(prefix="llmdevice-expected-"), Keeper()
    weakref.finalize(keeper, shutil.rmtree, folder, ignore_errors=True)
    said.save_pretrained(folder)
    return folder, keeper
