"""Trains a built checkpoint on fixed continuations, so that no greedy choice is close to a tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, Family
from pytest_llmdevice.zoo.prompts import PROMPTS, continuations
from pytest_llmdevice.zoo.weights import is_router, keep_routing_apart

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MARGIN: Final = 4.0
"""The wanted difference between the best and the second logit: many times the rounding error of bfloat16 (0.2)."""

_ENOUGH: Final = 0.9 * MARGIN
_MAX_STEPS: Final = 400


_LEARNING_RATE: Final = 0.08
"""The learning rate relative to the standard deviation of a weight, so that the scales keep their proportions."""


@dataclass(frozen=True, slots=True)
class _Lesson:
    """A training example.

    Attributes:
        read: the token ids that the decoder of a causal model, or the encoder of a seq2seq model, reads.
        answer: the token ids of the continuation to learn.
    """

    read: tuple[int, ...]
    answer: tuple[int, ...]


def calibrate(model: PreTrainedModel, family: Family, seed: int) -> float:
    """Train the matrices of `model` in place until every greedy choice of the continuations is clear.

    With random weights one choice in ten is closer than the rounding of bfloat16. About a hundred steps of squared
    hinge loss on eight prompts widen these choices and leave the others random.

    Returns:
        The smallest difference, over prompts and new tokens, between the wanted logit and the best other one.
    """
    import torch

    lessons = _lessons(seed)
    inputs = _inputs(family, lessons)
    rows, positions, labels = _targets(family, lessons)
    model.requires_grad_(False)
    fitted = [weight for name, weight in model.named_parameters() if _is_fitted(name, weight, family)]
    for weight in fitted:
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(
        [{"params": [weight], "lr": _LEARNING_RATE * weight.std().item()} for weight in fitted],
        betas=(0.9, 0.95),
        foreach=False,
    )
    smallest = float("-inf")
    for _ in range(_MAX_STEPS):
        logits = model(**inputs).logits[rows, positions]
        margins = (logits.gather(1, labels) - logits).scatter(1, labels, float("inf"))
        smallest = margins.min().item()
        if smallest >= _ENOUGH:
            break
        model.zero_grad()
        (MARGIN - margins).relu().square().sum().div(len(labels)).backward()
        optimizer.step()
        if family.moe:
            keep_routing_apart(model)
    model.zero_grad()
    return smallest


def _is_fitted(name: str, weight: torch.nn.Parameter, family: Family) -> bool:
    if weight.ndim == 1 or name.endswith("A_log"):
        return False
    if family.name == "mamba":
        # The gradients of scans over positions outweigh all others, so only the last layer's scan is trained.
        return "layers.0." not in name and "embeddings" not in name
    # Embeddings and routers together decide on a token's experts, which must not change.
    return not (family.moe and (is_router(name) or "embed_tokens" in name))


def _lessons(seed: int) -> list[_Lesson]:
    """Each prompt with its continuation; and each padded prompt without a mask, with another first token.

    Without the second kind a model might learn to ignore padding, and a target that forgets the mask would pass.
    """
    right = [_Lesson(prompt, answer) for prompt, answer in zip(PROMPTS, continuations(seed), strict=True)]
    longest = max(map(len, PROMPTS))
    misread = [
        _Lesson((PAD_TOKEN_ID,) * (longest - len(lesson.read)) + lesson.read, (lesson.answer[-1],))
        for lesson in right
        if len(lesson.read) < longest
    ]
    return right + misread


def _inputs(family: Family, lessons: list[_Lesson]) -> dict[str, torch.Tensor]:
    """The arguments of the model's forward for teacher forcing, each of shape (lessons, longest row)."""
    import torch

    def padded(rows: list[tuple[int, ...]], value: int) -> torch.Tensor:
        longest = max(map(len, rows))
        # On the right, where padding does not influence a causal model.
        return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])

    if family.kind == "seq2seq":
        rows = [lesson.read for lesson in lessons]
        decoder = padded([(PAD_TOKEN_ID, *lesson.answer[:-1]) for lesson in lessons], PAD_TOKEN_ID)
        extra = {"decoder_input_ids": decoder}
    else:
        rows = [(*lesson.read, *lesson.answer[:-1]) for lesson in lessons]
        extra = {}
    mask = padded([(1,) * len(row) for row in rows], 0)
    return {"input_ids": padded(rows, PAD_TOKEN_ID), "attention_mask": mask, **extra}


def _targets(family: Family, lessons: list[_Lesson]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row and position of each trained choice, both of shape (n,), and its label, of shape (n, 1)."""
    import torch

    targets = [
        (row, step if family.kind == "seq2seq" else len(lesson.read) - 1 + step, token)
        for row, lesson in enumerate(lessons)
        for step, token in enumerate(lesson.answer)
    ]
    rows, positions, labels = torch.tensor(targets).unbind(1)
    return rows, positions, labels[:, None]
