"""Builds the checkpoint of one model family in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary, first_line
from pytest_llmdevice.zoo.calibration import calibrate
from pytest_llmdevice.zoo.families import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID, VOCAB_SIZE, Family
from pytest_llmdevice.zoo.isolation import pinned_settings
from pytest_llmdevice.zoo.tokenizer import build_tokenizer
from pytest_llmdevice.zoo.traits.trait import Trait
from pytest_llmdevice.zoo.weights import initialize

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def build(family: Family, folder: Path, *, seed: int = 0, traits: Sequence[Trait] = ()) -> None:
    """Write configuration, generation defaults, float32 weights and tokenizer of `family` into `folder`.

    Each of `traits` then changes them, in their order.

    The same seed gives the same bytes on one machine with one set of library versions.

    Raises:
        UnsupportedByLibrary: the installed transformers does not have the family.
        ConfigurationError: the family cannot have one of `traits`.
        OSError: the folder cannot be written.
    """
    with pinned_settings(seed):
        model = build_model(family, seed, traits)
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        for trait in traits:
            trait.rewrite(folder)


def build_model(family: Family, seed: int, traits: Sequence[Trait] = ()) -> PreTrainedModel:
    """Build the model of `family` in float32 on the CPU, in evaluation mode. Call it within `pinned_settings`.

    Raises:
        UnsupportedByLibrary: the installed transformers does not have the family.
        ConfigurationError: the family cannot have one of `traits`.
    """
    import transformers

    library: Any = transformers
    config = configuration(family)
    vary(family.name, config, traits)
    if any(trait.close for trait in traits):
        # Then routers are initialized and trained as any matrix is.
        family = replace(family, moe=False)
    model: PreTrainedModel = getattr(library, family.auto_class).from_config(config, trust_remote_code=False)
    # Before the calibration, because dropout is on in a new model.
    model.train(False)
    initialize(model, family, seed)
    for trait in traits:
        trait.weigh(model)
    calibrate(model, family, seed)
    model.generation_config = library.GenerationConfig(do_sample=False, **_token_ids(family))
    return model


def configuration(family: Family) -> PreTrainedConfig:
    """The configuration of `family`.

    Raises:
        UnsupportedByLibrary: the installed transformers does not have the family.
    """
    import transformers

    library: Any = transformers
    config_class = getattr(library, family.config_class, None)
    if config_class is None:
        raise UnsupportedByLibrary(f"transformers {library.__version__} has no {family.config_class}")
    config: PreTrainedConfig = config_class(**_arguments(family))
    return config


def vary(name: str, config: PreTrainedConfig, traits: Sequence[Trait]) -> None:
    """Change the configuration of the model `name` in place, as `traits` say.

    Raises:
        ConfigurationError: a model with this configuration cannot have one of them.
    """
    text = config if config.is_encoder_decoder else config.get_text_config()
    for trait in traits:
        if why := trait.refusal(text):
            raise ConfigurationError(f"{name} cannot have the trait {trait.name!r}, for {trait.models}: {why}")
        trait.configure(text)
        if why := _refused(text):
            raise ConfigurationError(f"{name} cannot have the trait {trait.name!r}: {why}")


def _refused(config: PreTrainedConfig) -> str | None:
    """What the class of `config` has against it, as it says when it is saved; before transformers 5 nothing."""
    validate = getattr(config, "validate", None)
    try:
        if callable(validate):
            validate()
    except Exception as error:  # noqa: BLE001  # a class may refuse with anything
        return f"{type(config).__name__} refuses it: {first_line(error.__cause__ or error)}"
    return None


def _arguments(family: Family) -> dict[str, Any]:
    return {**family.arguments, **_token_ids(family), "vocab_size": VOCAB_SIZE, "dtype": "float32"}


def _token_ids(family: Family) -> dict[str, int]:
    ids = {"pad_token_id": PAD_TOKEN_ID, "bos_token_id": BOS_TOKEN_ID, "eos_token_id": EOS_TOKEN_ID}
    if family.kind == "seq2seq":
        ids["decoder_start_token_id"] = PAD_TOKEN_ID
    return ids
