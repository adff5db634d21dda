"""Writes and checks the manifest of a cache entry: its files, their sizes and SHA-256 hashes."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

MANIFEST_NAME: Final = "llmdevice-manifest.json"


def write_manifest(folder: Path, recipe: dict[str, Any]) -> None:
    """Record every file of `folder`, and the recipe that it was built from. It must be the last write of a build."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    content = json.dumps({"recipe": recipe, "files": files}, indent=1, sort_keys=True)
    (folder / MANIFEST_NAME).write_text(content, encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Describe the damage of the entry in `folder`, as a clause; None if it is intact.

    Sizes are compared on every call. Contents are hashed once per process, and again for a file whose size or
    modification time has changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        files = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"{MANIFEST_NAME} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST_NAME} cannot be read ({type(error).__name__}: {error})"
    for name, (size, sha256) in files.items():
        path = folder / name
        try:
            status = path.stat()
        except OSError:
            return f"{name} is missing"
        if status.st_size != size:
            return f"{name} has {status.st_size} bytes instead of {size}"
        if _hash_once(path, status.st_size, status.st_mtime_ns) != sha256:
            return f"{name} has another content than when it was written"
    return None


@lru_cache(maxsize=1024)
def _hash_once(path: Path, _size: int, _mtime_ns: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
