"""The project's own tests, on every cell: what the tutorial does with a loaded model."""

from __future__ import annotations

from typing import Any

import torch
from tutorial import model as tutorial

Tokens = list[list[int]]


def test_sampling_draws_the_same_from_the_same_seed(llm_model: Any, llm_prompts: Tokens) -> None:
    inputs = tutorial.batch(llm_model, llm_prompts, pad=0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(tutorial.generate(llm_model, inputs, 8, temperature=1.5, top_k=50, top_p=0.95))
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_long_prompt_is_cut_on_the_left(llm_model: Any, llm_prompts: Tokens) -> None:
    longest = max(llm_prompts, key=len)
    cut = tutorial.batch(llm_model, [longest, longest[-3:]], pad=0, longest=3)
    assert cut["input_ids"].tolist() == [longest[-3:]] * 2
    answers = tutorial.generate(llm_model, cut, 4)
    assert answers[0] == answers[1]


def test_a_conversation_says_what_one_long_prompt_says(llm_model: Any, llm_prompts: Tokens) -> None:
    conversation = tutorial.Conversation(llm_model)
    history: list[int] = []
    for prompt in llm_prompts[:2]:
        history += prompt
        answer = conversation.say(prompt, 4)
        fresh = tutorial.generate(llm_model, tutorial.batch(llm_model, [history], pad=0), 4)[0]
        assert answer == fresh
        history += answer


def test_monitors_see_time_and_memory(llm_model: Any, llm_prompts: Tokens) -> None:
    with tutorial.monitored() as monitor:
        tutorial.generate(llm_model, tutorial.batch(llm_model, llm_prompts, pad=0), 4)
    assert monitor.seconds > 0
    assert monitor.peak > monitor.allocated > 0
