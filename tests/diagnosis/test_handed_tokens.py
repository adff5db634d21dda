"""What a target handed to its model for one prompt, and the usual cause where that is not the prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice.checks.token_causes import handed_to
from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.hints import generation
from pytest_llmdevice.monitoring.trace import Call, Trace, describe

PLAIN: Any = nn.Module()
PLAIN.config = SimpleNamespace(pad_token_id=2)


def call(ids: list[int], past: int | None, **others: torch.Tensor) -> Call:
    """A forward pass over one row that the target makes."""
    given = {"input_ids": torch.tensor([ids]), **others}
    tensors = {name: describe(tensor, mask=name == "attention_mask", values=True) for name, tensor in given.items()}
    return Call("forward", "", True, tensors, past, 1)


def test_ids_that_are_fed_in_pieces_are_the_whole_prompt() -> None:
    pieces = Trace([call([5, 6], 0), call([7, 8], 2), call([9], 4)])
    assert handed_to(pieces, [5, 6, 7, 8], PLAIN).hint is None
    cut = handed_to(Trace([call([7, 8], 0), call([9], 2)]), [5, 6, 7, 8], PLAIN)
    assert (cut.hint, cut.what) == (generation.CUT, "2 of its 4 tokens")
    front = handed_to(Trace([call([1, 5, 6, 7, 8], 0)]), [5, 6, 7, 8], PLAIN)
    assert front.hint == generation.IN_FRONT
    assert str(front) == "handed to the model: [1, 5, 6, 7, 8] for the prompt [5, 6, 7, 8]: 1 token in front"


@pytest.mark.parametrize("pads", [1, 3])
def test_padding_that_a_mask_shows_is_no_token_in_front_of_the_prompt(pads: int) -> None:
    mask = torch.ones(1, pads + 4, dtype=torch.int64)
    handed = handed_to(Trace([call([2] * pads + [5, 6, 7, 8], 0, attention_mask=mask)]), [5, 6, 7, 8], PLAIN)
    assert handed.hint == generation.MASK
    assert f"{pads} of them attended to" in handed.what


def test_a_token_that_begins_texts_and_pads_them_is_in_front_where_it_is_alone() -> None:
    mask = torch.ones(1, 5, dtype=torch.int64)
    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=2, bos_token_id=2), generation_config=None)
    handed = handed_to(Trace([call([2, 5, 6, 7, 8], 0, attention_mask=mask)]), [5, 6, 7, 8], model)
    assert handed.hint == generation.IN_FRONT


@pytest.mark.parametrize(("visible", "cut"), [(2, False), (1, True)])
def test_a_window_cuts_no_prompt_off(visible: int, cut: bool) -> None:
    # Each token sees the one before it, which sees the one before that; with a window of one token none does.
    mask = torch.ones(4, 4, dtype=torch.bool).tril().triu(1 - visible)[None, None]
    handed = handed_to(Trace([call([5, 6, 7, 8], 0, attention_mask=mask)]), [5, 6, 7, 8], PLAIN)
    assert (handed.hint == generation.CUT) is cut


def test_padding_behind_a_mask_of_four_dimensions_is_not_handed_to_the_model() -> None:
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    mask[2:, :2] = False  # padding may see itself
    handed = handed_to(Trace([call([2, 2, 5, 6, 7], 0, attention_mask=mask[None, None])]), [5, 6, 7], PLAIN)
    assert handed.ids == (5, 6, 7)


@pytest.mark.parametrize(("second", "hint"), [([2, 3], None), ([4, 5], generation.POSITIONS)])
def test_the_positions_of_each_piece_go_on_where_the_last_one_ended(second: list[int], hint: Hint | None) -> None:
    pieces = Trace(
        [
            call([5, 6], 0, position_ids=torch.tensor([[0, 1]])),
            call([7, 8], 2, position_ids=torch.tensor([second])),
            call([9], 4, position_ids=torch.tensor([[4]])),
        ]
    )
    handed = handed_to(pieces, [5, 6, 7, 8], PLAIN)
    assert handed.hint == hint
    assert handed.what == ("" if hint is None else "position_ids, behind 2 tokens: expected [2, 3], found [4, 5]")


def test_where_a_draft_was_taken_back_nothing_is_said_of_positions() -> None:
    drafted = Trace([call([5, 6], 0), call([7, 8], 2), call([9], 3, position_ids=torch.tensor([[3]]))])
    assert handed_to(drafted, [5, 6, 7, 8], PLAIN).hint is None
