"""Keeps built checkpoints in a per-user cache, where each is built once, also by concurrent processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice.errors import CheckpointError
from pytest_llmdevice.zoo.families import Family
from pytest_llmdevice.zoo.manifest import damage, write_manifest

CACHE_VARIABLE: Final = "LLMDEVICE_CACHE"

RECIPE_VERSION: Final = 7
"""A number that is increased with every change to how weights, tokenizer or files are built."""

_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "safetensors")

_LONGEST_NAME: Final = 120
"""Characters of an entry's name before the hash, which tells long ones apart."""

_LOCK_TIMEOUT_SECONDS: Final = 600.0


def cache_directory(cache: Path | None = None) -> Path:
    """The folder of the cache: `cache`, else `$LLMDEVICE_CACHE`, else the user's cache directory."""
    if cache is not None:
        return cache.expanduser().absolute()
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("llmdevice")


def recipe(family: Family, seed: int, traits: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the bytes of a checkpoint depend on, as JSON-compatible data."""
    # Without traits and revisions nothing is said of them, so that checkpoints of earlier versions stay good.
    varied: dict[str, Any] = {"traits": list(traits)} if traits else {}
    varied |= {"revision": family.revision} if family.revision else {}
    return {
        **varied,
        "family": family.name,
        "config_class": family.config_class,
        "arguments": dict(family.arguments),
        "kind": family.kind,
        "seed": seed,
        "version": RECIPE_VERSION,
        "libraries": {library: version(library) for library in _LIBRARIES},
    }


def entry_name(family: Family, seed: int, traits: Sequence[str] = ()) -> str:
    """The name of a checkpoint's folder in the cache: the family, its traits, and a hash of its recipe."""
    content = json.dumps(recipe(family, seed, traits), sort_keys=True).encode()
    return f"{'~'.join((family.name, *traits))[:_LONGEST_NAME]}-{hashlib.sha256(content).hexdigest()[:16]}"


def cached(
    family: Family, seed: int, build: Callable[[Path], None], *, traits: Sequence[str] = (), cache: Path | None = None
) -> Path:
    """Return the folder of `family`'s checkpoint, and build it with `build(folder)` unless it is there and intact.

    A damaged checkpoint is rebuilt with a warning that names the damage. A file lock keeps processes from building
    the same checkpoint at once.

    Raises:
        CheckpointError: the cache directory cannot be written, or its lock cannot be acquired.
    """
    root = cache_directory(cache)
    entry = root / "zoo" / entry_name(family, seed, traits)
    # Without the lock, so that a read-only cache works.
    if entry.is_dir() and damage(entry) is None:
        return entry

    from filelock import FileLock, Timeout

    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{entry.name}.lock"), timeout=_LOCK_TIMEOUT_SECONDS):
            _replace(entry, recipe(family, seed, traits), build)
    except Timeout:
        raise CheckpointError(
            f"the checkpoint of {family.name} cannot be built: another process has held the lock of {entry} "
            f"for {_LOCK_TIMEOUT_SECONDS:.0f} seconds"
        ) from None
    except (OSError, NotImplementedError) as error:  # the second: a file system without locks
        raise CheckpointError(
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
    # Only the holder of the lock builds, so these folders were left by killed processes.
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
