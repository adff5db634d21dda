"""Reads settings off a model's configuration, which may be one of several inside another."""

from __future__ import annotations

from typing import Any, Final

_WRITERS: Final = ("text", "language", "llm", "decoder", "thinker", "generator")
"""What names of the nested configurations of parts that write text contain, the likelier ones first."""


def text_configuration(config: Any) -> Any:
    """The configuration of the part that writes text: the decoder's, in a model that also sees, hears or encodes.

    `config` itself where it has no other in it.
    """
    inner = getattr(config, "get_text_config", None)
    try:
        found = inner(decoder=True) if callable(inner) else config
    except ValueError:  # there are several, and it cannot tell which
        found = config
    if _value(found, "vocab_size") is not None or not hasattr(found, "__dict__"):
        return found
    nested = {key: value for key, value in vars(found).items() if _value(value, "vocab_size") is not None}
    named = [nested[key] for part in _WRITERS for key in nested if part in key]
    return next(iter([*named, *nested.values()]), found)


def setting(config: Any, name: str) -> Any:
    """The value of `name` for the part that writes text, else that of the whole; None where neither has it."""
    own = _value(text_configuration(config), name)
    return own if own is not None else _value(config, name)


def count(config: Any, name: str) -> int | None:
    """The same for a number above zero; None where there is none, or another in each layer."""
    value = setting(config, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def vocabulary_size(config: Any) -> int | None:
    """The number of tokens that the model of `config` knows; None where the configuration does not say."""
    return count(config, "vocab_size")


def _value(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # how transformers refuses what differs between layers
        return None
