"""Has a target that takes and gives text generate for token ids, and finds the ids of what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_llmdevice.errors import DoesNotApply
from pytest_llmdevice.inference.prompts import PROMPT_TEXTS
from pytest_llmdevice.model.observation import unobserved
from pytest_llmdevice.model.own import own_of

Tokens = Sequence[Sequence[int]]


def handed_ids(tokenizer: Any, prompt_ids: Callable[..., Any] | None, whole: Any, text: str) -> list[int]:
    """The token ids that should reach the model for `text`: by the target's `prompt_ids`, else by the tokenizer."""
    if prompt_ids is not None:
        return [int(token) for token in prompt_ids(whole, [text])[0]]
    return list(tokenizer(text)["input_ids"])


def ids_of_texts(
    generate_text: Callable[..., Any],
    prompt_ids: Callable[..., Any] | None,
    model: Any,
    prompts: Tokens,
    max_new_tokens: int,
) -> Any:
    """What `generate_text` answers to the texts of `prompts`, as token ids, a list for each prompt.

    Many ids may have one text, and some have none: an answer that is the text of what the model itself says greedily is
    taken for those ids, end token and all. Another one is encoded. What is no text is returned as it is.

    Raises:
        DoesNotApply: no text stands for one of `prompts`.
    """
    own = own_of(model)
    if own is None:
        raise DoesNotApply(
            "a target of texts needs the tokenizer of a checkpoint, and nothing is known of this model's"
        )
    tokenizer = own.tokenizer
    known = {tuple(handed_ids(tokenizer, prompt_ids, own.whole, text)): text for text in PROMPT_TEXTS}
    texts = [known.get(tuple(prompt)) or _text(tokenizer, prompt_ids, prompt) for prompt in prompts]
    answers = generate_text(own.whole, list(texts), max_new_tokens)
    if not isinstance(answers, (list, tuple)) or not all(isinstance(answer, str) for answer in answers):
        return answers
    with unobserved():
        rows = [
            _ids(tokenizer, model, prompt, answer, max_new_tokens)
            for prompt, answer in zip(prompts, answers, strict=False)
        ]
    return [*rows, *([] for _ in range(len(answers) - len(rows)))]


def _text(tokenizer: Any, prompt_ids: Callable[..., Any] | None, prompt: Sequence[int]) -> str:
    if prompt_ids is None:
        text: str = tokenizer.decode(list(prompt), skip_special_tokens=True)
        if list(tokenizer(text)["input_ids"]) == list(prompt):
            return text
    raise DoesNotApply("the target takes text, and no text stands for the token ids of one of the prompts")


def _ids(tokenizer: Any, model: Any, prompt: Sequence[int], answer: str, most: int) -> list[int]:
    from pytest_llmdevice.inference.generation import end_tokens, generate

    said, ends = generate(model, [prompt], most)[0], end_tokens(model)
    row = said[: next((at + 1 for at, token in enumerate(said) if token in ends), len(said))]
    for candidate in (row, said):
        if tokenizer.decode(candidate, skip_special_tokens=True).strip() == answer.strip():
            return list(candidate)
    return list(tokenizer(answer, add_special_tokens=False)["input_ids"])
