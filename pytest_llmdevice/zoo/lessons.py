"""Makes a batch of what checkpoints are trained on: prompts with their continuations, all choices read at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A training example.

    Attributes:
        read: the token ids that the decoder of a causal model, or the encoder of a seq2seq model, reads.
        answer: the token ids of the continuation to learn.
    """

    read: Tokens
    answer: Tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Lessons for one forward pass, with what should be said at which place.

    Attributes:
        inputs: the arguments of the model's forward for teacher forcing, each of shape (lessons, longest row).
        rows: the lesson of each trained choice, of shape (choices,).
        positions: where in its row, of shape (choices,).
        labels: the token to choose, of shape (choices, 1).
    """

    inputs: dict[str, torch.Tensor]
    rows: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions of what the decoder reads."""
        read = self.inputs.get("decoder_input_ids", self.inputs["input_ids"])
        return read.shape[0], read.shape[1]

    def margins(self, logits: torch.Tensor) -> torch.Tensor:
        """How far the wanted choice is above each other one, of shape (choices, vocabulary); itself is infinite.

        Args:
            logits: of the choices, of shape (choices, vocabulary).
        """
        return (logits.gather(1, self.labels) - logits).scatter(1, self.labels, float("inf"))


def lessons(prompts: Iterable[Tokens], answers: Iterable[Tokens], pad: int) -> list[Lesson]:
    """Each prompt with its continuation; and each padded prompt without a mask, with another first token.

    Without the second kind a model might learn to ignore padding, and a target that forgets the mask would pass.
    """
    right = [Lesson(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(len(lesson.read) for lesson in right)
    misread = [
        Lesson((pad,) * (longest - len(lesson.read)) + lesson.read, (lesson.answer[-1],))
        for lesson in right
        if len(lesson.read) < longest
    ]
    return right + misread


def batch(learned: Sequence[Lesson], pad: int, start: int | None = None) -> Batch:
    """`learned` as one batch.

    Args:
        learned: the lessons.
        pad: the token id of what stands behind a shorter row.
        start: the token id that the decoder of a seq2seq model starts with; None for a causal model.
    """
    import torch

    def padded(rows: list[Tokens], value: int) -> torch.Tensor:
        longest = max(map(len, rows))
        # On the right, where padding does not influence a causal model.
        return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])

    if start is not None:
        read = [lesson.read for lesson in learned]
        extra = {"decoder_input_ids": padded([(start, *lesson.answer[:-1]) for lesson in learned], pad)}
    else:
        read = [(*lesson.read, *lesson.answer[:-1]) for lesson in learned]
        extra = {}
    mask = padded([(1,) * len(row) for row in read], 0)
    targets = [
        (row, step if start is not None else len(lesson.read) - 1 + step, token)
        for row, lesson in enumerate(learned)
        for step, token in enumerate(lesson.answer)
    ]
    rows, positions, labels = torch.tensor(targets).unbind(1)
    return Batch({"input_ids": padded(read, pad), "attention_mask": mask, **extra}, rows, positions, labels[:, None])
