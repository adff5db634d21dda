"""Makes a tiny checkpoint of any text-generation architecture of the installed transformers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary, first_line
from pytest_llmdevice.matrix.suggest import nearest
from pytest_llmdevice.zoo.build import vary
from pytest_llmdevice.zoo.cache import cached
from pytest_llmdevice.zoo.catalogue import hyphenated, named
from pytest_llmdevice.zoo.exceptions import CANNOT, REVISIONS, adjusted
from pytest_llmdevice.zoo.families import BOS_TOKEN_ID, EOS_TOKEN_ID, PAD_TOKEN_ID, SEED, Family, Kind
from pytest_llmdevice.zoo.fitted import say_choices, train_choices
from pytest_llmdevice.zoo.isolation import pinned_settings
from pytest_llmdevice.zoo.reducer import reduced
from pytest_llmdevice.zoo.routing import settle_routing
from pytest_llmdevice.zoo.spread import spread
from pytest_llmdevice.zoo.tokenizer import build_tokenizer
from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Architecture:
    """One way in which transformers makes text.

    Attributes:
        name: the model type; with `-decoder` for the decoder by itself of a type that is an encoder-decoder too.
        model_type: as in a `config.json`.
        kind: whether `AutoModelForCausalLM` or `AutoModelForSeq2SeqLM` makes it.
        model_class: the name of the class that it makes.
    """

    name: str
    model_type: str
    kind: Kind
    model_class: str


@cache
def architectures() -> Mapping[str, Architecture]:
    """Name -> architecture, of all that the installed transformers makes; imports it."""
    from transformers.models.auto import modeling_auto

    tables = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    return {
        name: Architecture(name, model_type, kind, _first(made))
        for name, (model_type, kind, made) in named(*tables).items()
    }


def _first(made: Any) -> str:
    return made if isinstance(made, str) else made[0]


def architecture(name: str) -> Architecture:
    """The architecture called `name`.

    Raises:
        ConfigurationError: transformers has none of this name.
    """
    known = architectures()
    # As a matrix spells it, with hyphens, or as transformers does.
    name = {hyphenated(one): one for one in known}.get(hyphenated(name), name)
    if name not in known:
        guess = nearest(name, list(map(hyphenated, known)))
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise ConfigurationError(f"the installed transformers has no architecture {name!r} for text{hint}")
    return known[name]


def family_of(chosen: Architecture) -> Family:
    """The tiny checkpoint of `chosen`, as a family of the zoo.

    Raises:
        UnsupportedByLibrary: none can be made of it, and why.
    """
    from transformers import CONFIG_MAPPING

    if why := CANNOT.get(chosen.name):
        raise UnsupportedByLibrary(f"no checkpoint of {chosen.name} can be built: {why}")
    config_class = CONFIG_MAPPING[chosen.model_type]
    arguments = reduced(config_class(), decoder=chosen.kind == "causal")
    return Family(
        chosen.name,
        config_class.__name__,
        adjusted(chosen.model_type, arguments),
        chosen.kind,
        revision=REVISIONS.get(chosen.model_type, 0),
    )


def config_for(family: Family) -> PreTrainedConfig:
    """The tiny configuration of `family`.

    Raises:
        UnsupportedByLibrary: the class refuses its arguments.
    """
    from transformers import CONFIG_MAPPING

    config_class: Any = CONFIG_MAPPING[architecture(family.name).model_type]
    try:
        config: PreTrainedConfig = config_class(**family.arguments, dtype="float32")
    except Exception as error:  # a class may refuse with anything
        raise UnsupportedByLibrary(
            f"no checkpoint of {family.name} can be built: its configuration says {' '.join(str(error).split())}"
        ) from error
    return config


def checkpoint_of(name: str, traits: Sequence[Trait] = (), *, cache: Path | None = None) -> Path:
    """The local folder of a tiny checkpoint of the architecture `name` with `traits`, built unless it is there.

    Raises:
        ConfigurationError: transformers has no such architecture, or it cannot have one of the traits.
        UnsupportedByLibrary: no checkpoint of it can be built, and why.
        CheckpointError: the cache cannot be written.
    """
    family = family_of(architecture(name))
    build = partial(build_architecture, family, seed=SEED, traits=traits)
    return cached(family, SEED, build, traits=[trait.name for trait in traits], cache=cache)


def build_architecture(
    family: Family, folder: Path, *, seed: int = SEED, traits: Sequence[Trait] = (), tokenizer: Sequence[Path] = ()
) -> None:
    """Write configuration, generation defaults, float32 weights and tokenizer of `family` into `folder`.

    The tokenizer is the zoo's, or that of the files `tokenizer`. Weights are trained until no greedy choice after the
    prompts is close to a tie; where that cannot be done, `fitted.why_unclear` says why.

    Raises:
        UnsupportedByLibrary: the class cannot be made, and why.
        ConfigurationError: it cannot have one of the traits.
    """
    with pinned_settings(seed):
        whole = config_for(family)
        vary(family.name, whole, traits)
        model = _model(family, whole, seed, traits, own_tokens=bool(tokenizer))
        for file in tokenizer:
            shutil.copyfile(file, folder / file.name)
        if not tokenizer:
            build_tokenizer().save_pretrained(folder)
        say_choices(folder, train_choices(model, seed, folder if tokenizer else None))
        model.save_pretrained(folder)
        if type(model.config) is not type(whole):
            # The class of the text part: what a loader finds is the configuration of the whole.
            whole.architectures = [type(model).__name__]
            whole.save_pretrained(folder)
        for trait in traits:
            trait.rewrite(folder)


def _model(
    family: Family, config: PreTrainedConfig, seed: int, traits: Sequence[Trait], *, own_tokens: bool
) -> PreTrainedModel:
    import transformers

    library: Any = transformers
    try:
        model: PreTrainedModel = getattr(library, family.auto_class).from_config(config, trust_remote_code=False)
    except Exception as error:  # a class may refuse with anything
        raise UnsupportedByLibrary(
            f"no checkpoint of {family.name} can be built: {type(error).__name__}: {first_line(error)}"
        ) from error
    model.train(False)
    spread(model, seed)
    if not any(trait.close for trait in traits):
        settle_routing(model, seed)
    for trait in traits:
        trait.weigh(model)
    usual = {"pad_token_id": PAD_TOKEN_ID, "bos_token_id": BOS_TOKEN_ID, "eos_token_id": EOS_TOKEN_ID}
    ids = {name: getattr(config.get_text_config(), name, None) for name in usual}
    if not own_tokens:
        pad = getattr(config, "pad_token_id", None)
        ids = {**usual, "pad_token_id": pad if isinstance(pad, int) else PAD_TOKEN_ID}
    start = {"decoder_start_token_id": config.decoder_start_token_id} if config.is_encoder_decoder else {}
    model.generation_config = library.GenerationConfig(do_sample=False, **ids, **start)
    return model
