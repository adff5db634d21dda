"""Lists the architectures of the installed transformers that make text, without an import of it, which takes seconds.

The two tables of names are literals in its source. `architectures()` has the same from the library itself.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

CAUSAL: Final = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
SEQ2SEQ: Final = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"

Named: TypeAlias = tuple[str, Literal["causal", "seq2seq"], Any]
"""Model type, kind, and the class or classes."""

_WHERE: Final = Path("models", "auto", "modeling_auto.py")


def hyphenated(name: str) -> str:
    """A name of transformers as a matrix spells it."""
    return name.replace("_", "-")


def names() -> tuple[str, ...]:
    """All architectures, as a matrix spells them."""
    return tuple(hyphenated(name) for name in named(*tables()))


def named(causal: Mapping[str, Any], both: Mapping[str, Any]) -> dict[str, Named]:
    """Name -> model type, kind and class, of the tables of causal and of encoder-decoder classes.

    Encoder-decoders that transformers also makes a decoder of are two architectures; the decoder ends in `-decoder`.
    """
    found: dict[str, Named] = {
        f"{name}-decoder" if name in both and both[name] != made else name: (name, "causal", made)
        for name, made in causal.items()
    }
    return found | {name: (name, "seq2seq", made) for name, made in both.items() if causal.get(name) != made}


@cache
def tables() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The tables of causal and of encoder-decoder classes, by model type; from the library where it is written anew."""
    spec = find_spec("transformers")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        try:
            found = _literals((Path(folder) / _WHERE).read_text(encoding="utf-8"))
            return found[CAUSAL], found[SEQ2SEQ]
        except (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError):
            continue
    if spec is None:
        return {}, {}
    from transformers.models.auto import modeling_auto

    return modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


def _literals(source: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name) and target.id in (CAUSAL, SEQ2SEQ):
                found[target.id] = dict(ast.literal_eval(statement.value.args[0]))
    return found
