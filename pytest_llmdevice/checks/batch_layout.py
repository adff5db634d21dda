"""Checks the layout of a batch that a target passes to its model: padding, attention mask and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.checks.call_tensors import IDS, Row, ids_of, mask_of, masks_of, rows_of
from pytest_llmdevice.checks.position_ids import position_findings
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.inference.generation import is_encoder_decoder, pad_token
from pytest_llmdevice.model.lengths import NO_LIMIT, sliding_window
from pytest_llmdevice.monitoring.trace import Call

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]


def padding_findings(
    call: Call, following: Sequence[Call], prompts: Tokens, model: Any, embedded: torch.Tensor | None = None
) -> list[Finding]:
    """Check the padding of a call, its mask, and its positions.

    Args:
        call: a call that the target made.
        following: the recorded calls inside it.
        prompts: token ids of each prompt.
        model: the model.
        embedded: the ids that the target embedded itself before, used if the call has none.
    """
    ids, mask = ids_of(call), mask_of(call)
    inputs = call.tensors.get("inputs_embeds")
    if ids is None and inputs is not None and embedded is not None and inputs.shape[:2] == embedded.shape:
        ids = embedded
    rows = rows_of(ids, prompts) if ids is not None else None
    findings = _right_padding(call, rows, ids, mask, model)
    if not findings:
        findings = _masking(call, following, prompts, rows, mask_of(call, rows), model)
    return [*findings, *position_findings(call, rows, mask, model)]


def _right_padding(
    call: Call, rows: list[Row] | None, ids: torch.Tensor | None, mask: torch.Tensor | None, model: Any
) -> list[Finding]:
    # A forward pass over a batch padded on the right is correct if its logits are read at the end of each prompt, but
    # `generate` appends tokens after the padding.
    if call.function != "generate" or is_encoder_decoder(model):
        return []
    number = None
    if mask is not None and (ids is None or mask.shape == ids.shape):
        ended = (~mask[:, -1] & mask.any(dim=1)).nonzero()
        number = int(ended[0]) if len(ended) else None
    if number is None and rows and ids is not None:
        tails = [row.width - row.stop for row in rows]
        pad = pad_token(model)
        padded = [at for at, row in enumerate(rows) if tails[at] and bool((ids[at, row.stop :] == pad).all())]
        if len(set(tails)) > 1:
            number = tails.index(max(tails))
        elif padded:
            number = padded[0]
    if number is None:
        return []
    name = next((name for name in (*IDS, "inputs_embeds") if name in call.tensors), "input_ids")
    where = f"{name}, row {number}"
    return [Finding(where, "padding on the left", "padding on the right", generation.RIGHT_PADDING, subject=name)]


def _masking(
    call: Call,
    following: Sequence[Call],
    prompts: Tokens,
    rows: list[Row] | None,
    mask: torch.Tensor | None,
    model: Any,
) -> list[Finding]:
    if rows is None or call.past:
        # What looks like a prompt behind others is a part of one.
        return []
    width = rows[0].width
    if mask is None and not masks_of(call):
        if all(_pads(row, call) == 0 for row in rows) or _inferred(following, prompts):
            return []
        number = next(at for at, row in enumerate(rows) if _pads(row, call))
        return [
            Finding(
                "attention_mask",
                f"zeros over the padding (row {number} has {_pads(rows[number], call)} padding tokens)",
                "no mask",
                generation.MASK,
            )
        ]
    if mask is None or mask.shape[-1] < width or mask.shape[0] not in {1, len(rows)}:
        return []
    mask = mask[:, :width].expand(len(rows), width)
    added = _in_front(call, rows, mask, model)
    if added:
        return [Finding("input_ids", "the tokens of the prompt", f"{added} in front of them", generation.IN_FRONT)]
    for number, row in enumerate(rows):
        # After the prompt there may be new tokens or padding: only what is before it is known to be padding.
        if bool(mask[number, : row.start].any()):
            return [
                Finding(
                    f"attention_mask, row {number}",
                    f"zeros over its {row.start} padding tokens",
                    f"{int(mask[number, : row.start].sum())} of them attended to",
                    generation.MASK,
                    subject="attention_mask",
                )
            ]
        # A mask of four dimensions may be for layers that see only their sliding window.
        first = max(row.start, row.stop - _window(call, model))
        hidden = int((~mask[number, first : row.stop]).sum())
        if hidden:
            return [
                Finding(
                    f"attention_mask, row {number}",
                    f"ones over the {row.stop - row.start} tokens of its prompt",
                    f"{hidden} of them hidden",
                    generation.MASK,
                    subject="attention_mask",
                )
            ]
    return []


def _window(call: Call, model: Any) -> int:
    """The number of tokens before the last one that the mask of `call` must show."""
    wide = any(len(tensor.shape) == 4 for tensor in masks_of(call))
    return (sliding_window(model) if wide else None) or NO_LIMIT


def _in_front(call: Call, rows: list[Row], mask: torch.Tensor, model: Any) -> list[int]:
    """Unmasked tokens before the prompt in every row; they are no padding, which the longest row does not have."""
    ids = ids_of(call)
    if ids is None or not all(row.start and bool(mask[at, : row.start].all()) for at, row in enumerate(rows)):
        return []
    tokens: list[int] = ids[0, : rows[0].start].tolist()
    return [] if pad_token(model) in tokens else tokens


def _pads(row: Row, call: Call) -> int:
    # In a loop of the target's own, the tokens after a prompt are new tokens.
    return row.start + (row.width - row.stop if call.function == "generate" else 0)


def _inferred(following: Sequence[Call], prompts: Tokens) -> bool:
    """Whether the model made a mask itself: one that it passed to a submodule hides all padding."""
    for call in following:
        ids, mask = ids_of(call), mask_of(call)
        rows = rows_of(ids, prompts) if ids is not None else None
        if rows is None or mask is None or mask.shape[-1] < rows[0].width or len(mask) not in {1, len(rows)}:
            continue
        mask = mask.expand(len(rows), mask.shape[-1])
        if not any(
            bool(mask[at, : row.start].any()) or bool(mask[at, row.stop : row.width].any())
            for at, row in enumerate(rows)
        ):
            return True
    return False
