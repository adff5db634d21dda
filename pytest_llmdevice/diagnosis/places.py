"""Says what usually puts a tensor on a wrong device, by where the others are and what accelerate left on the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_llmdevice.diagnosis.hints import placement as hints

if TYPE_CHECKING:
    from pytest_llmdevice.diagnosis.finding import Hint
    from pytest_llmdevice.matrix.cell import Cell


@dataclass(frozen=True, slots=True)
class PlacementEvidence:
    """What is known of a model of which a tensor is on a wrong device.

    Attributes:
        cell: what was asked for.
        places: every device that a tensor of the model is on.
        mapped: the devices of its `hf_device_map`; empty without one.
        hooked: whether a module has a hook of accelerate's.
        cards: the cards that the cell's strategy takes.
        automatic: whether its strategy leaves the choice of the cards to accelerate.
        offload: whether the cell asks for a part of the model to be kept elsewhere.
        piped: whether the load made a pipeline of transformers.
    """

    cell: Cell
    places: tuple[str, ...]
    mapped: tuple[str, ...] = ()
    hooked: bool = False
    cards: int = 1
    automatic: bool = False
    offload: bool = False
    piped: bool = False


def cause_of_place(seen: PlacementEvidence, place: str, *, buffer: bool, brought: bool) -> Hint | None:
    """The usual cause of a tensor on `place`, which is not where it is to be; None where nothing fits.

    Args:
        seen: what is known of the model.
        place: a device with its index, or `"meta"`.
        buffer: whether it is a buffer.
        brought: whether a hook brings its data from where it is kept.
    """
    kind, _, index = place.partition(":")
    asked = seen.cell.torch_device.type
    alone = len(seen.places) == 1
    if place == "meta":
        return hints.OFFLOADED if brought or {"cpu", "disk"} & set(seen.mapped) else hints.META
    # The first card of a kind has no index on Apple's machines.
    if seen.piped and alone and not seen.mapped and index in {"0", ""} and kind != "cpu":
        return hints.PIPELINE
    if asked == "cpu":
        return hints.CARD_PREFERRED
    several = len(seen.mapped) > 1
    if several and seen.cards < 2 and not seen.automatic and not seen.offload:
        return hints.OFFLOADED if place in {"cpu", "disk"} and place in seen.mapped else hints.SPREAD
    if (seen.automatic or seen.cards > 1) and (several or seen.hooked):
        return hints.STALE
    if kind == asked:
        if seen.cards > 1 and not alone and not seen.hooked:
            return hints.NO_HOOKS
        # Of a few tensors on another card only the current one is what a device without an index means.
        return hints.WRONG_INDEX if alone or index == "0" else None
    if alone:
        return hints.OFFLOADED if "cpu" in seen.mapped else hints.NEVER_MOVED
    return hints.BUFFER_LEFT_BEHIND if buffer else hints.LEFT_BEHIND
