"""The per-user cache of built checkpoints: each is built once, however many processes ask for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice.errors import CheckpointUnavailable
from pytest_llmdevice.zoo.families import Family
from pytest_llmdevice.zoo.manifest import damage, write_manifest

CACHE_VARIABLE: Final = "LLMDEVICE_CACHE"

RECIPE_VERSION: Final = 5
"""Raised with every change to how weights, tokenizer or files come about."""

_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "safetensors")

_LOCK_TIMEOUT_SECONDS: Final = 600.0


def cache_directory(cache: Path | None = None) -> Path:
    """Where checkpoints are kept: `cache`, else `$LLMDEVICE_CACHE`, else the user's cache directory."""
    if cache is not None:
        return cache.expanduser().absolute()
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("llmdevice")


def recipe(family: Family, seed: int) -> dict[str, Any]:
    """All that the bytes of a checkpoint depend on, ready for JSON."""
    return {
        "family": family.name,
        "config_class": family.config_class,
        "arguments": dict(family.arguments),
        "kind": family.kind,
        "seed": seed,
        "version": RECIPE_VERSION,
        "libraries": {library: version(library) for library in _LIBRARIES},
    }


def entry_name(family: Family, seed: int) -> str:
    """Name of the entry's folder: the family, and a hash over its recipe."""
    content = json.dumps(recipe(family, seed), sort_keys=True).encode()
    return f"{family.name}-{hashlib.sha256(content).hexdigest()[:16]}"


def cached(family: Family, seed: int, build: Callable[[Path], None], *, cache: Path | None = None) -> Path:
    """The folder of `family`'s checkpoint, built by `build(folder)` unless an intact one is there.

    A damaged entry is rebuilt with a warning that names what was wrong. Processes take turns at a file lock.

    Raises:
        CheckpointUnavailable: the cache directory cannot be written, or its lock cannot be had.
    """
    root = cache_directory(cache)
    entry = root / "zoo" / entry_name(family, seed)
    # Without the lock: an intact entry in a read-only cache is as good as any.
    if entry.is_dir() and damage(entry) is None:
        return entry

    from filelock import FileLock, Timeout

    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{entry.name}.lock"), timeout=_LOCK_TIMEOUT_SECONDS):
            _replace(entry, recipe(family, seed), build)
    except Timeout:
        raise CheckpointUnavailable(
            f"the checkpoint of {family.name} cannot be built: another process has held the lock of {entry} "
            f"for {_LOCK_TIMEOUT_SECONDS:.0f} seconds"
        ) from None
    except (OSError, NotImplementedError) as error:  # the second: a file system without locks
        raise CheckpointUnavailable(
            f"the checkpoint of {family.name} cannot be built: the cache directory {root} cannot be written "
            f"({_reason(error)}); set {CACHE_VARIABLE} to one that can"
        ) from error
    return entry


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _replace(entry: Path, built_from: dict[str, Any], build: Callable[[Path], None]) -> None:
    if entry.is_dir():
        wrong = damage(entry)
        if wrong is None:
            return
        warnings.warn(f"rebuilding the damaged checkpoint {entry}: {wrong}", stacklevel=4)
    prefix = f".{entry.name}."
    # Only the holder of the lock builds, so whatever lies here was left by a killed process.
    for left_over in entry.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=entry.parent))
    try:
        fresh = work / "fresh"
        fresh.mkdir()
        build(fresh)
        write_manifest(fresh, built_from)
        if entry.exists():
            entry.replace(work / "damaged")
        fresh.replace(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)
