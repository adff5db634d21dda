"""Finds or makes the local folder of a model from its name in a matrix."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from pytest_llmdevice.errors import CheckpointError, CheckpointUnavailable, ConfigurationError
from pytest_llmdevice.zoo.cache import cached
from pytest_llmdevice.zoo.families import family

SEED: Final = 0
"""The seed of every checkpoint that ships."""


def checkpoint(model: str, *, cache: Path | None = None) -> Path:
    """The local folder of `model`.

    Args:
        model: a family of the zoo (`"llama"`), `"path:DIR"`, or `"hub:org/name@revision"`, where the
            revision is `main` unless given.
        cache: where built families are kept instead of `$LLMDEVICE_CACHE` or the user's cache directory.
            Hub models stay in the Hugging Face cache.

    Raises:
        CheckpointUnavailable: it cannot be had here: no such directory, repository or revision, gated, no
            network, or a cache directory that cannot be written.
        CheckpointError: the directory is there and holds no `config.json`.
        ConfigurationError: no family has this name, or nothing is named after the prefix.
    """
    scheme, separator, rest = model.partition(":")
    if separator and scheme == "path":
        return _local(rest)
    if separator and scheme == "hub":
        from pytest_llmdevice.zoo.hub import download

        name, _, revision = rest.partition("@")
        return download(name, revision or "main")

    from pytest_llmdevice.zoo.build import build

    chosen = family(model)
    return cached(chosen, SEED, partial(build, chosen, seed=SEED), cache=cache)


def _local(directory: str) -> Path:
    if not directory:
        raise ConfigurationError("path: names no directory: expected path:DIR")
    folder = Path(directory).expanduser().absolute()
    if not folder.is_dir():
        raise CheckpointUnavailable(f"there is no directory {folder}")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json: it is no checkpoint that from_pretrained reads")
    return folder
