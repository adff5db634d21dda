"""Describes what made a reference: stored outputs are used again only where the same would make them now."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pytest_llmdevice.loading.checkpoint_files import stamps

CLEAN: Final = "a process in which no target was imported"
"""How references are made. Older ones, which have no maker, may be the work of a target that patched the libraries."""

_LIBRARIES: Final = ("pytest-llmdevice", "torch", "transformers", "accelerate")


def maker_of(checkpoint: str) -> str:
    """A digest of what a reference of `checkpoint` is made by: how, with which versions, and with which code.

    Versions alone do not tell a library that is being worked on from itself: the sources that a plain load and its
    generation run are stamped too.
    """
    import torch
    import transformers

    root = Path(transformers.__file__).parent
    folders = (root, root / "generation", root / "models" / _model_type(checkpoint), Path(torch.__file__).parent / "nn")
    identity = [CLEAN, *map(version, _LIBRARIES), *([str(folder), *stamps(folder).items()] for folder in folders)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def _model_type(checkpoint: str) -> str:
    try:
        config = json.loads((Path(checkpoint) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    name = config.get("model_type") if isinstance(config, dict) else None
    return name.replace("-", "_") if isinstance(name, str) else ""
