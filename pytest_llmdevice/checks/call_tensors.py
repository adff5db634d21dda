"""Reads token ids and masks off a traced call: where each prompt is in a batch, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.monitoring.trace import Call, TracedTensor

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

IDS: Final = ("input_ids", "inputs", "input")


@dataclass(frozen=True, slots=True)
class Row:
    """The position of a prompt in a row of token ids.

    Attributes:
        prompt: the number of the prompt.
        start: the column of its first token, after the padding.
        stop: the column after its last token.
        width: the length of the row.
    """

    prompt: int
    start: int
    stop: int
    width: int


def rows_of(ids: torch.Tensor, prompts: Tokens) -> list[Row] | None:
    """Find the prompt in each row of `ids`, after nothing or one repeated token; None if a row has none."""
    if ids.ndim != 2:
        return None
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    rows = []
    for tokens in ids.tolist():
        row = next((match for number in order if (match := _find(tokens, number, list(prompts[number])))), None)
        if row is None:
            return None
        rows.append(row)
    return rows


def _find(tokens: list[int], number: int, prompt: list[int]) -> Row | None:
    for start in range(len(tokens) - len(prompt) + 1 if prompt else 0):
        if start > 1 and tokens[start - 1] != tokens[0]:
            return None
        if tokens[start : start + len(prompt)] == prompt:
            return Row(number, start, start + len(prompt), len(tokens))
    return None


def ids_of(call: Call) -> torch.Tensor | None:
    """The token ids among the arguments of `call`, as integers on the CPU; None if there are none or too many."""
    for name in IDS:
        tensor = call.tensors.get(name)
        if tensor is not None and tensor.integers:
            return tensor.values
    return None


MASK: Final = "attention_mask"


def mask_of(call: Call, rows: Sequence[Row] | None = None) -> torch.Tensor | None:
    """The attention mask of `call` as booleans of shape (batch, columns); None if it has none of a known form.

    For a mask of four dimensions it is the row of each prompt's last token if `rows` are given, else of the newest
    token. For a mapping with a mask for each kind of layer, it is the mask that hides least.
    """
    values = [tensor.values for tensor in masks_of(call) if tensor.values is not None]
    masks = [mask for mask in (_two_dimensional(value, call.past or 0, rows) for value in values) if mask is not None]
    return max(masks, key=lambda mask: int(mask.sum()), default=None)


def masks_of(call: Call) -> list[TracedTensor]:
    """The masks among the arguments of `call`: one, or one for each kind of layer."""
    return [tensor for name, tensor in call.tensors.items() if name.partition("[")[0] == MASK]


def _two_dimensional(values: torch.Tensor, past: int, rows: Sequence[Row] | None) -> torch.Tensor | None:
    import torch

    if values.ndim == 2:
        return values != 0
    if values.ndim != 4:
        return None
    visible = shown(values)
    newest = visible.shape[1] - 1
    if rows is None or len(visible) not in {1, len(rows)}:
        return visible[:, newest]
    columns = [row.stop - 1 - past for row in rows]
    at = torch.tensor([column if 0 <= column <= newest else newest for column in columns])
    return visible.expand(len(rows), -1, -1)[torch.arange(len(rows)), at]


def read_of(call: Call) -> torch.Tensor | None:
    """Which columns the newest token of each row reads, as booleans of shape (batch, columns); None if unknown.

    It reads what it is shown, and what that is shown: with a mask of four dimensions that has a window, all tokens of
    a text, and no padding, which only itself is shown. For a mapping with several masks, it is by the one that hides
    least.
    """
    values = [tensor.values for tensor in masks_of(call) if tensor.values is not None]
    read = [_read(value) for value in values if value.ndim in {2, 4}]
    return max(read, key=lambda mask: int(mask.sum()), default=None)


def _read(values: torch.Tensor) -> torch.Tensor:
    if values.ndim == 2:
        return values != 0
    visible = shown(values)
    tokens, columns = visible.shape[1:]
    past, read = columns - tokens, visible[:, -1].clone()
    # Of tokens that are in a cache it is not known what they were shown.
    for column in range(columns - 2, max(past, 0) - 1, -1):
        read |= read[:, column, None] & visible[:, column - past]
    return read


def shown(values: torch.Tensor) -> torch.Tensor:
    """What a mask of four dimensions shows, of shape (batch, tokens, columns)."""
    return values[:, 0] > -1 if values.is_floating_point() else values[:, 0] != 0
