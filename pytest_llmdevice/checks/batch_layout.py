"""Checks the layout of a batch that a target passes to its model: padding, attention mask and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.inference.generation import is_encoder_decoder, pad_token
from pytest_llmdevice.model.lengths import NO_LIMIT, sliding_window
from pytest_llmdevice.model.wrappers import configuration_of
from pytest_llmdevice.monitoring.trace import Call, TracedTensor

if TYPE_CHECKING:
    import torch

Tokens = Sequence[Sequence[int]]

OFFSET_FAMILIES: Final = frozenset(
    ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "xmod", "roberta-prelayernorm")
)
"""Model types whose positions start after the id of the padding token."""

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
    values = [tensor.values for tensor in _masks(call) if tensor.values is not None]
    masks = [mask for mask in (_two_dimensional(value, call.past or 0, rows) for value in values) if mask is not None]
    return max(masks, key=lambda mask: int(mask.sum()), default=None)


def _masks(call: Call) -> list[TracedTensor]:
    return [tensor for name, tensor in call.tensors.items() if name.partition("[")[0] == MASK]


def _two_dimensional(values: torch.Tensor, past: int, rows: Sequence[Row] | None) -> torch.Tensor | None:
    import torch

    if values.ndim == 2:
        return values != 0
    if values.ndim != 4:
        return None
    visible = values[:, 0] > -1 if values.is_floating_point() else values[:, 0] != 0
    newest = visible.shape[1] - 1
    if rows is None or len(visible) not in {1, len(rows)}:
        return visible[:, newest]
    columns = [row.stop - 1 - past for row in rows]
    at = torch.tensor([column if 0 <= column <= newest else newest for column in columns])
    return visible.expand(len(rows), -1, -1)[torch.arange(len(rows)), at]


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
    return [*findings, *_positions(call, rows, mask, model)]


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
    if rows is None:
        return []
    width = rows[0].width
    if mask is None and not _masks(call):
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
    wide = any(len(tensor.shape) == 4 for tensor in _masks(call))
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


def _positions(call: Call, rows: list[Row] | None, mask: torch.Tensor | None, model: Any) -> list[Finding]:
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
    real, wanted = _expected_positions(rows, mask, columns, call.past)
    if real is None or wanted is None or (len(given) not in {1, len(real)}):
        return []
    given = given.expand(len(real), columns)
    config = configuration_of(model)
    starts = [0]
    if getattr(config, "model_type", "") in OFFSET_FAMILIES:
        starts.append(pad_token(model) + 1)
    if any(bool(((given == wanted + start) | ~real).all()) for start in starts):
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


def _expected_positions(
    rows: list[Row] | None, mask: torch.Tensor | None, columns: int, past: int | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(where there are tokens, their positions), each of shape (batch, columns); None if unknown."""
    import torch

    numbers = torch.arange(columns)
    if rows is not None and not past and rows[0].width == columns:
        starts = torch.tensor([[row.start] for row in rows])
        return numbers.expand(len(rows), -1) >= starts, numbers - starts
    if mask is not None and past is not None and mask.shape[-1] in {columns, columns + past}:
        return mask[:, -columns:], (mask.long().cumsum(-1) - 1)[:, -columns:]
    return None, None


def _short(numbers: torch.Tensor) -> str:
    values = numbers.tolist()
    return str(values) if len(values) <= 6 else f"[{', '.join(map(str, values[:4]))}, ... {values[-1]}]"
