"""Builds the checkpoint of one model family in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.zoo.calibration import calibrate
from pytest_llmdevice.zoo.families import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID, VOCAB_SIZE, Family
from pytest_llmdevice.zoo.isolation import pinned_settings
from pytest_llmdevice.zoo.tokenizer import build_tokenizer
from pytest_llmdevice.zoo.weights import initialize

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build(family: Family, folder: Path, *, seed: int = 0) -> None:
    """Write configuration, generation defaults, float32 weights and tokenizer of `family` into `folder`.

    The same seed gives the same bytes on one machine with one set of library versions.

    Raises:
        UnsupportedByLibrary: the installed transformers does not have the family.
        OSError: the folder cannot be written.
    """
    with pinned_settings(seed):
        model = build_model(family, seed)
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)


def build_model(family: Family, seed: int) -> PreTrainedModel:
    """Build the model of `family` in float32 on the CPU, in evaluation mode. Call it within `pinned_settings`.

    Raises:
        UnsupportedByLibrary: the installed transformers does not have the family.
    """
    import transformers

    library: Any = transformers
    config_class = getattr(library, family.config_class, None)
    if config_class is None:
        raise UnsupportedByLibrary(f"transformers {library.__version__} has no {family.config_class}")
    config = config_class(**_arguments(family))
    model: PreTrainedModel = getattr(library, family.auto_class).from_config(config, trust_remote_code=False)
    # Before the calibration, because dropout is on in a new model.
    model.train(False)
    initialize(model, family, seed)
    calibrate(model, family, seed)
    model.generation_config = library.GenerationConfig(do_sample=False, **_token_ids(family))
    return model


def _arguments(family: Family) -> dict[str, Any]:
    return {**family.arguments, **_token_ids(family), "vocab_size": VOCAB_SIZE, "dtype": "float32"}


def _token_ids(family: Family) -> dict[str, int]:
    ids = {"pad_token_id": PAD_TOKEN_ID, "bos_token_id": BOS_TOKEN_ID, "eos_token_id": EOS_TOKEN_ID}
    if family.kind == "seq2seq":
        ids["decoder_start_token_id"] = PAD_TOKEN_ID
    return ids
