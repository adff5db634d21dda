"""Defines what a trait is: one way in which real checkpoints differ from a tidy one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def _nothing(_changed: object) -> None:
    """Leave it as it is."""


def _fits(_config: object) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Trait:
    """A variation of a built checkpoint, by its name behind `~`: `llama~right`.

    What is changed in the configuration or the model is there before the weights are trained to clear choices.

    Attributes:
        name: `"no-pad"`.
        description: what is other, a phrase for the reference page.
        why: a sentence on the real checkpoints that have it.
        source: a public address of one of them, or of the code that reads it.
        models: which models it is for, a phrase.
        refusal: why a model with this configuration, a tiny one, cannot have it; None where it can.
        configure: changes the configuration in place, before the model is made.
        weigh: changes the weights in place, before they are trained.
        rewrite: changes the files in the folder of the checkpoint, when all of them are written.
        close: whether routing is left as close as chance makes it, and trained with the rest.
    """

    table: ClassVar[str] = "trait"

    name: str
    description: str
    why: str
    source: str
    models: str = "all"
    refusal: Callable[[PreTrainedConfig], str | None] = _fits
    configure: Callable[[PreTrainedConfig], None] = _nothing
    weigh: Callable[[PreTrainedModel], None] = _nothing
    rewrite: Callable[[Path], None] = _nothing
    close: bool = False
