"""Knows what a load returned beside the model, and what its target says of that model, while the load is kept.

Checks are handed modules. What a target returned around a module (a pipeline, a wrapper that is no module) and how a
module that is not transformers' is called are found here, by the module.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

Logits = Callable[["Any", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(what was loaded, ids, mask), both int64 of shape (batch, length) -> logits of shape (batch, length, vocabulary)."""


@dataclass(eq=False)
class Own:
    """What is known of one loaded model beyond itself.

    Attributes:
        whole: what the target's `load` returned: the model, or an object that has it.
        checkpoint: the local folder that it was loaded from.
        logits: how the target computes logits; None where the model is called by itself.
        reference: the local folder of what the model should be, see `loading.target.FullTarget.expected`.
        kept: what keeps that folder on disk; None where nothing needs to.
        names: patterns of tensor names of the model -> names in the checkpoint, see `loading.target.FullTarget.names`.
        known: what tensors of the model are in the checkpoint, as they were found by their values.
    """

    whole: Any
    checkpoint: str
    reference: str
    logits: Logits | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    known: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    kept: object = None

    @cached_property
    def config(self) -> Any:
        """The checkpoint's configuration; None where transformers knows none."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.checkpoint, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError):
            return None

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True, trust_remote_code=False)


_known: Final[dict[int, tuple[weakref.ref[Any], weakref.ref[Own]]]] = {}
"""By the id of a module, of whose equality nothing is known: itself, and what is known of it. Neither is kept alive."""


def member(target: Any, name: str) -> Callable[..., Any] | None:
    """The function `name` of `target`; None where it has none, or something else of that name (`self.model = ...`)."""
    found = getattr(target, name, None)
    return found if inspect.isroutine(found) or isinstance(found, partial) else None


def describe(model: nn.Module, own: Own) -> None:
    """Have `own_of(model)` give `own` for as long as somebody keeps both."""
    for key in [key for key, (module, about) in _known.items() if module() is None or about() is None]:
        del _known[key]
    _known[id(model)] = weakref.ref(model), weakref.ref(own)


def own_of(model: Any) -> Own | None:
    """What is known of `model`; None of a model that no target has loaded, or whose load was let go."""
    entry = _known.get(id(model))
    return entry[1]() if entry is not None and entry[0]() is model else None


def whole_of(model: Any) -> Any:
    """What the load of `model` returned: `model` itself where nothing else is known."""
    own = own_of(model)
    return model if own is None else own.whole


def of_checkpoint(model: Any) -> Any:
    """The configuration of the checkpoint of a model that has none of its own; None where there is none."""
    own = own_of(model)
    return None if own is None else own.config
