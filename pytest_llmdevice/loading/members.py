"""Finds out which of the optional parts of a target there are, and asks them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import ConfigurationError, first_line, of_target
from pytest_llmdevice.model.own import member

if TYPE_CHECKING:
    from torch import nn

    from pytest_llmdevice.matrix.cell import Cell

MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "load": ("checkpoint", "cell"),
    "model": ("loaded",),
    "generate": ("loaded", "prompts", "max_new_tokens"),
    "generate_text": ("loaded", "prompts", "max_new_tokens"),
    "prompt_ids": ("loaded", "prompts"),
    "offers": ("cell",),
    "names": ("loaded",),
    "logits": ("loaded", "ids", "mask"),
    "expected": ("checkpoint", "cell"),
}
"""What a target may have, and what each is called with. Only `load` must be there."""


def misfit(target: Any, name: str) -> str:
    """Why the function `name` of `target` cannot be called as it will be, in words; empty where it can."""
    function, given = member(target, name), MEMBERS[name]
    if function is None:
        return ""
    try:
        inspect.signature(function).bind(*given)
    except ValueError:
        # Of a function in C nothing is known.
        return ""
    except TypeError as error:
        return f"{name!r} cannot be called as {name}({', '.join(given)}): {error}"
    return ""


def offered(target: Any, cell: Cell, name: str) -> str:
    """Why `target` does not do what `cell` asks, by its own word; empty where it does, or says nothing.

    Raises:
        ConfigurationError: its `offers` raises, or says something else than yes, no or a reason.
    """
    function = member(target, "offers")
    if function is None:
        return ""
    try:
        said = function(cell)
    except of_target() as error:
        raise ConfigurationError(f"target {name!r}: offers({cell.id}) raised {first_line(error)}") from None
    if said is True:
        return ""
    if said is False:
        return f"{name} does not offer it"
    if isinstance(said, str) and said.strip():
        return said.strip()
    raise ConfigurationError(
        f"target {name!r}: offers({cell.id}) returned {said!r}: it says True, False, or why not in a text"
    )


def declared_names(target: Any, loaded: Any) -> Mapping[str, str]:
    """What `target` says of the names of its tensors: `names`, a mapping or a function that gives one.

    Raises:
        ConfigurationError: it is something else.
    """
    found = member(target, "names")
    said = found(loaded) if found is not None else getattr(target, "names", None)
    if said is None or (found is None and not isinstance(said, Mapping)):
        return {}
    if not isinstance(said, Mapping) or not all(isinstance(text, str) for pair in said.items() for text in pair):
        raise ConfigurationError(
            "the target's `names` must map patterns of its own names to names of the checkpoint, as in "
            f"{{'blocks.*.q': 'model.layers.*.self_attn.q_proj'}}, and is {type(said).__name__}"
        )
    return dict(said)


def model_of(target: Any, loaded: Any) -> tuple[nn.Module | None, str]:
    """The module in what `target` loaded, and, where there is none, why, in words.

    It is what the target's `model(loaded)` gives; else what was loaded, if it is a module; else the only module, or the
    one called `model`, among its attributes and items, two levels deep.
    """
    from torch import nn

    from pytest_llmdevice.loading.return_value import not_a_model
    from pytest_llmdevice.model.inside import modules_in, only_model

    function = member(target, "model")
    if function is not None:
        said = function(loaded)
        return (said, "") if isinstance(said, nn.Module) else (None, f"model(loaded): {not_a_model(said)}")
    if isinstance(loaded, nn.Module):
        return loaded, ""
    if inspect.isroutine(loaded) or inspect.isawaitable(loaded) or inspect.isgenerator(loaded):
        return None, not_a_model(loaded)
    found = modules_in(loaded)
    if way := only_model(found):
        return found[way], ""
    if found:
        ways = ", ".join(f"loaded{path} ({type(module).__name__})" for path, module in list(found.items())[:4])
        return None, f"{type(loaded).__name__} with several modules: {ways}: say which one in model(loaded)"
    return None, not_a_model(loaded)
