"""Trains a built checkpoint on fixed continuations, so that no greedy choice is close to a tie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_llmdevice.zoo.families import PAD_TOKEN_ID, Family
from pytest_llmdevice.zoo.lessons import batch, lessons
from pytest_llmdevice.zoo.prompts import PROMPTS, continuations
from pytest_llmdevice.zoo.weights import is_router, keep_routing_apart

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MARGIN: Final = 4.0
"""The wanted difference between the best and the second logit: many times the rounding error of bfloat16 (0.2)."""

ENOUGH: Final = 0.9 * MARGIN
_MAX_STEPS: Final = 400


_LEARNING_RATE: Final = 0.08
"""The learning rate relative to the standard deviation of a weight, so that the scales keep their proportions."""


def calibrate(model: PreTrainedModel, family: Family, seed: int) -> float:
    """Train the matrices of `model` in place until every greedy choice of the continuations is clear.

    With random weights one choice in ten is closer than the rounding of bfloat16. About a hundred steps of squared
    hinge loss on eight prompts widen these choices and leave the others random.

    Returns:
        The smallest difference, over prompts and new tokens, between the wanted logit and the best other one.
    """
    import torch

    learned = lessons(PROMPTS, continuations(seed), PAD_TOKEN_ID)
    read = batch(learned, PAD_TOKEN_ID, PAD_TOKEN_ID if family.kind == "seq2seq" else None)
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
        margins = read.margins(model(**read.inputs).logits[read.rows, read.positions])
        smallest = margins.min().item()
        if smallest >= ENOUGH:
            break
        model.zero_grad()
        (MARGIN - margins).relu().square().sum().div(len(read.labels)).backward()  # type: ignore[no-untyped-call]
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
