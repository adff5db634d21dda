"""Writes a whole file in one step, so that nobody ever finds it half written."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pytest_llmdevice.errors import ResultsError


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` into a new file beside `path` and put that in its place.

    Raises:
        ResultsError: the folder cannot be written to, or the disk is full.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp keeps others out, which is not what a file of a repository is like.
        Path(temporary).chmod(path.stat().st_mode if path.exists() else 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise ResultsError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from None
