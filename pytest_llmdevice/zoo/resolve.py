"""Finds or makes the local folder of a model from its name in a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from pytest_llmdevice.errors import CheckpointError, ConfigurationError
from pytest_llmdevice.matrix.suggest import nearest
from pytest_llmdevice.zoo.cache import cached
from pytest_llmdevice.zoo.families import family

SEED: Final = 0
"""The seed of every checkpoint that ships."""


def checkpoint(model: str, *, cache: Path | None = None) -> Path:
    """The local folder of `model`.

    Args:
        model: a family of the zoo (`"llama"`), one with a trained adapter (`"llama+lora"`), `"path:DIR"`, or
            `"hub:org/name@revision"`, where the revision is `main` unless given.
        cache: where built families are kept instead of `$LLMDEVICE_CACHE` or the user's cache directory.
            Hub models stay in the Hugging Face cache.

    Raises:
        CheckpointUnavailable: it cannot be had from the hub: no such repository or revision, gated, or no network.
        CheckpointError: the directory is there and holds no `config.json`, or the cache cannot be written.
        ConfigurationError: no family has this name, there is no such directory, or nothing is named after the prefix.
    """
    scheme, separator, rest = model.partition(":")
    if separator and scheme == "path":
        return _local(rest)
    if separator and scheme == "hub":
        from pytest_llmdevice.zoo.hub import download

        name, _, revision = rest.partition("@")
        return download(name, revision or "main")

    from pytest_llmdevice.zoo.build import build
    from pytest_llmdevice.zoo.lora import SUFFIX, lora

    if model.endswith(SUFFIX):
        return lora(checkpoint(model.removesuffix(SUFFIX), cache=cache))
    chosen = family(model)
    return cached(chosen, SEED, partial(build, chosen, seed=SEED), cache=cache)


def _local(directory: str) -> Path:
    if not directory:
        raise ConfigurationError("path: names no directory: expected path:DIR")
    folder = _named(directory)
    try:
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}") from None
    raise CheckpointError(f"{folder} holds no config.json: it is no checkpoint that from_pretrained reads")


def _named(directory: str) -> Path:
    """The folder that `path:` names, which the user must have spelled as it is."""
    try:
        folder = Path(directory).expanduser().absolute()
        if folder.is_dir():
            return folder
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        exists = folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # the last: `~somebody` who has no home
        raise ConfigurationError(f"path:{directory} cannot be looked at: {error}") from None
    if exists:
        raise ConfigurationError(f"path:{directory}: {folder} is a file; name the folder of a checkpoint")
    guess = nearest(folder.name, beside)
    hint = f"; did you mean {guess!r}?" if guess else ""
    raise ConfigurationError(f"path:{directory}: there is no directory {folder}{hint}")


def refuse_impossible(models: Iterable[str]) -> None:
    """Do nothing if each of `models` can be the name of a checkpoint; nothing is built, read or downloaded.

    Raises:
        ConfigurationError: a folder that is not there, or a name that no repository of the hub can have.
    """
    for model in models:
        scheme, _, rest = model.partition(":")
        if scheme == "path":
            _named(rest)
        elif scheme == "hub":
            from pytest_llmdevice.zoo.hub import refuse_impossible_name

            refuse_impossible_name(rest.partition("@")[0])
