"""Checks the positions that a target hands to its model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.checks.call_tensors import Row, ids_of, masks_of, shown
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.model.lengths import first_position, sliding_window
from pytest_llmdevice.monitoring.trace import Call

if TYPE_CHECKING:
    import torch


def position_findings(call: Call, rows: list[Row] | None, mask: torch.Tensor | None, model: Any) -> list[Finding]:
    """Check that `position_ids` of two dimensions count the tokens of each row; those of padding may be anything."""
    import torch

    tensor = call.tensors.get("position_ids")
    given = tensor.values if tensor is not None else None
    if given is None or given.ndim != 2 or not given.shape[-1]:
        return []
    columns = given.shape[-1]
    if len(given) == 1 and int((given == 0).sum()) > 1:
        # Several sequences are packed into one row, and each is counted from zero.
        return []
    if _past_is_hidden(call, model):
        mask = None
    real, wanted = _expected_positions(rows, mask, columns, call.past)
    if real is None or wanted is None or (len(given) not in {1, len(real)}):
        return []
    given = given.expand(len(real), columns)
    wanted = wanted + first_position(model)
    if bool(((given == wanted) | ~real).all()):
        return []
    wrong = ((given != wanted) & real).any(dim=1).nonzero()
    number = int(wrong[0])
    at = real[number]
    return [
        Finding(
            f"position_ids, row {number}",
            f"{_short(wanted[number][at])} at its tokens",
            _short(torch.as_tensor(given[number][at])),
            generation.POSITIONS,
            subject="position_ids",
        )
    ]


def piece_findings(calls: Iterable[Call], model: Any) -> Iterator[Finding]:
    """Check the positions of a text that is fed in pieces, without a mask: each goes on where its cache ends.

    The first piece has no padding in front, and no pass was taken back, as drafts are: the cache holds all tokens that
    were fed before.

    Args:
        calls: what the target called for one prompt, in order.
        model: the model.
    """
    import torch

    fed = 0
    for call in calls:
        ids, positions = ids_of(call), call.tensors.get("position_ids")
        if ids is None or ids.ndim != 2 or len(ids) != 1 or masks_of(call) or call.past != fed:
            return
        count = ids.shape[1]
        if positions is not None and positions.values is not None and positions.shape == (1, count):
            wanted = torch.arange(fed, fed + count) + first_position(model)
            given = positions.values[0]
            if not torch.equal(given.to(wanted.dtype), wanted):
                where = f"position_ids, behind {fed} tokens"
                yield Finding(where, _short(wanted), _short(given), generation.POSITIONS, subject="position_ids")
        fed += count


def _expected_positions(
    rows: list[Row] | None, mask: torch.Tensor | None, columns: int, past: int | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(where there are tokens, their positions), each of shape (batch, columns); None if unknown."""
    import torch

    numbers = torch.arange(columns)
    if rows is not None and not past and rows[0].width == columns:
        starts = torch.tensor([[row.start] for row in rows])
        stops = torch.tensor([[row.stop] for row in rows])
        # Behind a prompt there may be padding, whose positions may be anything, or new tokens.
        known = (numbers >= starts) & (numbers < stops)
        if mask is not None and mask.shape == known.shape:
            known = known | (mask & (numbers >= stops))
        return known, numbers - starts
    if mask is not None and past is not None and mask.shape[-1] in {columns, columns + past}:
        return mask[:, -columns:], (mask.long().cumsum(-1) - 1)[:, -columns:]
    return None, None


def _short(numbers: torch.Tensor) -> str:
    values = numbers.tolist()
    return str(values) if len(values) <= 6 else f"[{', '.join(map(str, values[:4]))}, ... {values[-1]}]"


def _past_is_hidden(call: Call, model: Any) -> bool:
    """Whether a mask of four dimensions hides tokens before a window: it does not say which of them are padding.

    A layer with a window sees the last tokens only; while a target decodes, that is all that its mask shows.
    """
    window = sliding_window(model)
    if window is None or not call.past:
        return False
    return any(
        tensor.values is not None and tensor.values.ndim == 4 and not bool(shown(tensor.values)[:, -1, :-window].all())
        for tensor in masks_of(call)
        if tensor.values is None or tensor.values.shape[-1] > window
    )
