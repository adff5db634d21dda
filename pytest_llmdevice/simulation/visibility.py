"""Says which cards of a machine a process sees, by `CUDA_VISIBLE_DEVICES` and its like, as the drivers read them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_llmdevice.matrix.cards import Profile

VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "rocm": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "xpu": ("ZE_AFFINITY_MASK",),
}
"""Kind of card -> the variables that its driver reads when a process first uses it."""

BLANK: Final = frozenset({"", "-1"})
"""The values that hide every card."""


def card_uuid(profile: Profile, index: int) -> uuid.UUID:
    """The UUID of the card at `index` of a machine, whatever its index is in a process."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{profile.name}/{index}")


def card_uuids(profile: Profile) -> tuple[str, ...]:
    """The UUIDs of the cards of a machine as `nvidia-smi -L` writes them: `"GPU-..."`, of MIG instances `"MIG-..."`."""
    return tuple(
        f"{'MIG' if card.slice else 'GPU'}-{card_uuid(profile, index)}" for index, card in enumerate(profile.cards)
    )


def variables(profile: Profile, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that choose among the cards of `profile`, of those that are set."""
    return {name: environment[name] for name in VARIABLES.get(profile.kind, ()) if name in environment}


def order(profile: Profile, environment: Mapping[str, str]) -> tuple[int, ...]:
    """The indices in the machine of the cards that a process with `environment` sees, in its own order.

    As CUDA reads the variable: what follows a wrong index or an unknown UUID is hidden, a card named twice hides all,
    and of MIG instances a process sees one.
    """
    said = variables(profile, environment)
    seen: Sequence[int] = range(profile.count)
    uuids = card_uuids(profile)
    if profile.kind == "xpu":
        mask = said.get("ZE_AFFINITY_MASK")
        return tuple(seen) if mask is None else tuple(index for index in seen if str(index) in _parts(mask))
    if profile.kind == "rocm":
        if (first := said.get("ROCR_VISIBLE_DEVICES")) is not None:
            seen = _chosen(first, seen, uuids)
        second = said.get("HIP_VISIBLE_DEVICES", said.get("CUDA_VISIBLE_DEVICES"))
    else:
        second = said.get("CUDA_VISIBLE_DEVICES")
    if second is not None:
        seen = _chosen(second, seen, [uuids[index] for index in seen])
    return tuple(seen)[: profile.seen] if profile.seen < profile.count else tuple(seen)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _chosen(text: str, cards: Sequence[int], uuids: Sequence[str]) -> tuple[int, ...]:
    """Those of `cards`, whose UUIDs are `uuids`, that `text` names by place or by UUID."""
    prefix = text[:4] if text.startswith(("GPU-", "MIG-")) else ""
    named: list[int | str] = []
    for part in text.split(","):
        name = part if prefix else _number(part.strip())
        if name is None or (isinstance(name, str) and not name.startswith(prefix)):
            break
        if name in named:
            return ()
        if isinstance(name, int) and name < 0:
            break
        named.append(name)
    found: list[int] = []
    for name in named:
        place = _by_uuid(name, uuids) if isinstance(name, str) else name
        if place is None or place >= len(cards):
            break
        if cards[place] in found:
            return ()
        found.append(cards[place])
    return tuple(found)


def _by_uuid(text: str, uuids: Sequence[str]) -> int | None:
    """The place of the card whose UUID begins with `text`; None where there is none, or more than one."""
    fitting = [place for place, known in enumerate(uuids) if known.startswith(text)]
    return fitting[0] if len(fitting) == 1 else None


def _number(text: str) -> int | None:
    """The number that `text` begins with, as C's `strtoul` reads it: `"1gpu"` is 1; None where it begins with none."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    length = next((place for place, char in enumerate(digits) if not (char.isascii() and char.isdigit())), len(digits))
    return int(text[: len(text) - len(digits)] + digits[:length]) if length else None
