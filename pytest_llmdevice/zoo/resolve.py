"""Finds or makes the local folder of a model from its name in a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pytest_llmdevice.errors import CheckpointError, ConfigurationError
from pytest_llmdevice.matrix.model_names import ADAPTER, parts_of, problem_of, spelled
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.suggest import nearest
from pytest_llmdevice.zoo.cache import cached
from pytest_llmdevice.zoo.families import SEED, Family
from pytest_llmdevice.zoo.traits.trait import Trait


def checkpoint(model: str, *, cache: Path | None = None) -> Path:
    """The local folder of `model`.

    Args:
        model: a family of the zoo or an architecture of transformers (`"llama"`), also with traits and a trained
            adapter (`"llama~no-pad~right+lora"`), `"path:DIR"`, `"hub:org/name@revision"`, where the revision is
            `main` unless given, or `"hub-config:org/name@revision"` for a tiny one of the same architecture.
        cache: where built families are kept instead of `$LLMDEVICE_CACHE` or the user's cache directory.
            Hub models stay in the Hugging Face cache.

    Raises:
        CheckpointUnavailable: it cannot be had from the hub: no such repository or revision, gated, or no network.
        CheckpointError: the directory is there and holds no `config.json`, or the cache cannot be written.
        UnsupportedByLibrary: the installed transformers has the architecture, and no checkpoint of it can be built.
        ConfigurationError: no model or trait has this name, a model cannot have a trait, there is no such directory, or
            nothing is named after the prefix.
    """
    scheme, separator, rest = model.partition(":")
    if separator and scheme == "path":
        return _local(rest)
    if separator and scheme == "hub":
        from pytest_llmdevice.zoo.hub import download

        name, _, revision = rest.partition("@")
        return download(name, revision or "main")

    if separator and scheme == "hub-config":
        from pytest_llmdevice.zoo.hub_config import checkpoint_like

        return checkpoint_like(model, cache=cache)
    return _built(spelled(model), cache)


def _built(model: str, cache: Path | None) -> Path:
    if problem := problem_of(model):
        raise ConfigurationError(problem)
    parts = parts_of(model)
    if parts.adapter:
        from pytest_llmdevice.zoo.lora import lora

        return lora(_built(model.partition(ADAPTER)[0], cache))
    known = current().of(Trait)
    traits = [known[name] for name in parts.traits]
    chosen = current().of(Family).get(parts.base)
    if chosen is None:
        from pytest_llmdevice.zoo.architectures import checkpoint_of

        return checkpoint_of(parts.base, traits, cache=cache)
    from pytest_llmdevice.zoo.build import build

    return cached(chosen, SEED, partial(build, chosen, seed=SEED, traits=traits), traits=parts.traits, cache=cache)


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
        ConfigurationError: a folder that is not there, a name that no repository of the hub can have, an architecture
            that cannot be built, or a trait that a model cannot have.
    """
    for model in models:
        scheme, _, rest = model.partition(":")
        if scheme == "path":
            _named(rest)
        elif scheme == "hub":
            from pytest_llmdevice.zoo.hub import refuse_impossible_name

            refuse_impossible_name(rest.partition("@")[0])
        elif scheme == "hub-config":
            from pytest_llmdevice.zoo.hub import refuse_impossible_name

            refuse_impossible_name(parts_of(rest).base.partition("@")[0], "hub-config")
        elif model not in current().of(Family):
            from pytest_llmdevice.zoo.fits import refuse_unfit

            refuse_unfit(model)
