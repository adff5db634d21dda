"""What makes the weights useful: greedy choices that no rounding flips, and that every mistake moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_llmdevice import zoo
from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, SEED, SLIDING_WINDOW
from pytest_llmdevice.zoo.prompts import CONTINUATION_LENGTH, PROMPTS, continuations

Load = Callable[..., Any]

every_family = pytest.mark.parametrize("name", zoo.families())
every_moe = pytest.mark.parametrize("name", [name for name in zoo.families() if zoo.family(name).moe])


def generate(model: Any, rows: list[list[int]], mask: list[list[int]] | None = None) -> list[list[int]]:
    ids = torch.tensor(rows)
    attention_mask = torch.ones_like(ids) if mask is None else torch.tensor(mask)
    tokens = model.generate(ids, attention_mask=attention_mask, max_new_tokens=CONTINUATION_LENGTH)
    return [row[-CONTINUATION_LENGTH:] for row in tokens.tolist()]


@torch.no_grad()
def logits_along(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...], **arguments: Any) -> torch.Tensor:
    """Teacher-forced logits of the answer's tokens, in float32: (`CONTINUATION_LENGTH`, vocabulary)."""
    if model.config.is_encoder_decoder:
        decoder = torch.tensor([[PAD_TOKEN_ID, *answer[:-1]]])
        output = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder, **arguments)
    else:
        output = model(input_ids=torch.tensor([[*prompt, *answer[:-1]]]), **arguments)
    logits: torch.Tensor = output.logits[0, -CONTINUATION_LENGTH:].float()
    return logits


def padded_left() -> tuple[list[list[int]], list[list[int]]]:
    longest = max(map(len, PROMPTS))
    gaps = [longest - len(prompt) for prompt in PROMPTS]
    rows = [[PAD_TOKEN_ID] * gap + list(prompt) for gap, prompt in zip(gaps, PROMPTS, strict=True)]
    mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
    return rows, mask


@every_family
def test_every_shipped_prompt_has_the_continuation_it_was_fitted_to(name: str, load: Load) -> None:
    generated = [generate(load(name), [list(prompt)])[0] for prompt in PROMPTS]
    assert generated == [list(answer) for answer in continuations(SEED)]


@every_family
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_dtype_generates_the_same_tokens(name: str, dtype: str, load: Load) -> None:
    rows, mask = padded_left()
    assert generate(load(name, dtype), rows, mask) == [list(answer) for answer in continuations(SEED)]


def test_no_continuation_repeats_a_token_or_holds_a_special_one() -> None:
    for answer in continuations(SEED):
        assert len(set(answer)) == CONTINUATION_LENGTH
        assert max(answer) < PAD_TOKEN_ID


@every_family
def test_the_best_logit_leads_by_far_more_than_bfloat16_can_move(name: str, load: Load) -> None:
    for prompt, answer in zip(PROMPTS, continuations(SEED), strict=True):
        exact = logits_along(load(name), prompt, answer)
        rounded = logits_along(load(name, "bfloat16"), prompt, answer)
        best = exact.topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 3.5
        assert (rounded - exact).abs().max() < 3.5 / 4


@every_family
def test_another_first_token_moves_the_logits_of_a_short_prompt(name: str, load: Load) -> None:
    prompt, answer = PROMPTS[0], continuations(SEED)[0]
    assert len(prompt) < SLIDING_WINDOW
    exact = logits_along(load(name), prompt, answer)
    changed = logits_along(load(name), (prompt[0] + 1, *prompt[1:]), answer)
    assert (changed - exact).abs().max() > 0.5


@every_family
def test_the_order_of_a_prompt_moves_the_logits(name: str, load: Load) -> None:
    prompt, answer = PROMPTS[0], continuations(SEED)[0]
    exact = logits_along(load(name), prompt, answer)
    reordered = logits_along(load(name), (*prompt[-2::-1], prompt[-1]), answer)
    assert (reordered - exact).abs().max() > 0.5


@pytest.mark.parametrize("name", [n for n in zoo.families() if n not in {"bloom", "mamba", "t5", "opt"}])
def test_wrong_positions_move_the_logits(name: str, load: Load) -> None:
    prompt, answer = PROMPTS[4], continuations(SEED)[4]
    exact = logits_along(load(name), prompt, answer)
    length = len(prompt) + len(answer) - 1
    stretched = logits_along(load(name), prompt, answer, position_ids=2 * torch.arange(length)[None])
    assert (stretched - exact).abs().max() > 0.5


@every_family
def test_padding_behind_a_mask_changes_no_token(name: str, load: Load) -> None:
    rows, mask = padded_left()
    assert generate(load(name), rows, mask) == [list(answer) for answer in continuations(SEED)]


@every_family
def test_a_forgotten_mask_changes_the_tokens_of_every_padded_prompt(name: str, load: Load) -> None:
    rows, mask = padded_left()
    generated = generate(load(name), rows)
    for tokens, answer, seen in zip(generated, continuations(SEED), mask, strict=True):
        assert (tokens == list(answer)) == all(seen)


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_the_sliding_window_hides_part_of_the_longest_prompt(name: str, load: Load) -> None:
    import transformers

    model = load(name)
    prompt, answer = PROMPTS[-1], continuations(SEED)[-1]
    assert len(prompt) > SLIDING_WINDOW
    wide = transformers.AutoModelForCausalLM.from_pretrained(model.name_or_path, sliding_window=64)
    assert (logits_along(wide, prompt, answer) - logits_along(model, prompt, answer)).abs().max() > 0.5


@every_moe
def test_no_rounding_sends_a_token_to_another_expert(name: str, load: Load) -> None:
    model, rounded = load(name), load(name, "bfloat16")
    exact_scores, rounded_scores = router_scores(model), router_scores(rounded)
    assert exact_scores.shape == rounded_scores.shape
    ranked = exact_scores.sort(dim=-1, descending=True).values
    assert (ranked[:, 1] - ranked[:, 2]).min() > 10 * (rounded_scores - exact_scores).abs().max()


@every_moe
def test_every_expert_is_used(name: str, load: Load) -> None:
    chosen = router_scores(load(name)).topk(2).indices
    assert set(chosen.flatten().tolist()) == {0, 1, 2, 3}


@torch.no_grad()
def router_scores(model: Any) -> torch.Tensor:
    """Scores of every router for every token of the shipped continuations: (tokens, experts)."""
    scores: list[torch.Tensor] = []

    def record(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        weight = module.weight.float()
        scores.append(inputs[0].float().reshape(-1, weight.shape[1]) @ weight.T)

    hooks = [m.register_forward_pre_hook(record) for n, m in model.named_modules() if n.endswith(".gate")]
    for prompt, answer in zip(PROMPTS, continuations(SEED), strict=True):
        logits_along(model, prompt, answer)
    for hook in hooks:
        hook.remove()
    assert hooks
    return torch.cat(scores)
