"""Makes a tiny checkpoint of the architecture of a real repository, of which only `config.json` and tokenizer are read.

The configuration is the repository's, reduced: what it has of kinds of layers, scaling, norms and the like stays, sizes
become tiny. The vocabulary and the ids of special tokens are those of the repository, whose tokenizer goes with it.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import CheckpointUnavailable, UnsupportedByLibrary, first_line
from pytest_llmdevice.matrix.model_names import parts_of
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.zoo.architectures import architectures, build_architecture
from pytest_llmdevice.zoo.cache import cached
from pytest_llmdevice.zoo.exceptions import CANNOT, REVISIONS, adjusted
from pytest_llmdevice.zoo.families import SEED, Family
from pytest_llmdevice.zoo.hub import download, tokenizer_files
from pytest_llmdevice.zoo.reducer import arguments_of, reduced, says_token
from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def checkpoint_like(model: str, *, cache: Path | None = None) -> Path:
    """The folder of a tiny checkpoint of the architecture of `model`, `hub-config:org/name@revision` with traits.

    Raises:
        CheckpointUnavailable: the configuration cannot be had, or is none that this transformers makes text with.
        UnsupportedByLibrary: it cannot be reduced.
        ConfigurationError: it is no name of a repository, or the model cannot have a trait.
    """
    parts = parts_of(model)
    name, _, revision = parts.base.partition(":")[2].partition("@")
    folder = download(name, revision or "main", weights=False)
    known = current().of(Trait)
    traits = [known[trait] for trait in parts.traits]
    family = family_like(folder, name)
    files = tokenizer_files(folder)
    # What is built depends on the tokenizer too.
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    build = partial(build_architecture, family, traits=traits, tokenizer=files)
    return cached(family, SEED, build, traits=(*parts.traits, f"tokenizer-{content}"), cache=cache)


def family_like(folder: Path, name: str) -> Family:
    """The tiny architecture that the `config.json` in `folder`, of the repository `name`, describes.

    Raises:
        CheckpointUnavailable: the installed transformers makes no text with such a configuration.
        UnsupportedByLibrary: it cannot be reduced.
    """
    from transformers import CONFIG_MAPPING

    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = str(raw["model_type"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointUnavailable(f"{name}: its config.json names no model_type") from None
    found = [one for one in architectures().values() if one.model_type == model_type]
    if not found:
        own = "code of its own (auto_map), which is never run" if raw.get("auto_map") else "no architecture for text"
        raise CheckpointUnavailable(f"{name}: its model type {model_type!r} is {own}, in the installed transformers")
    wanted = "seq2seq" if raw.get("is_encoder_decoder", len(found) == 1 and found[0].kind == "seq2seq") else "causal"
    chosen = next((one for one in found if one.kind == wanted), found[0])
    if why := CANNOT.get(chosen.name):
        raise UnsupportedByLibrary(f"{name} cannot be reduced: {why}")
    config_class: Any = CONFIG_MAPPING[model_type]
    try:
        arguments = adjusted(model_type, _like(config_class.from_dict(raw), decoder=chosen.kind == "causal"))
    except Exception as error:  # a class may refuse with anything
        raise UnsupportedByLibrary(f"{name} cannot be reduced: {type(error).__name__}: {first_line(error)}") from error
    revision = REVISIONS.get(chosen.model_type, 0)
    return Family(chosen.name, config_class.__name__, arguments, chosen.kind, revision=revision)


def _like(config: PreTrainedConfig, *, decoder: bool = False) -> dict[str, Any]:
    """The arguments of a tiny configuration with all that `config` says, but for its sizes."""
    held = vars(config)
    names = {name: config.attribute_map.get(name, name) for name in arguments_of(type(config))}
    own = {name: held[at] for name, at in names.items() if held.get(at) is not None}
    small = reduced(config, decoder=decoder)
    for name, value in own.items():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            small[name] = {**_like(value), "model_type": value.model_type}
        elif says_token(name) or "vocab_size" in name:
            small[name] = value
    return own | small
