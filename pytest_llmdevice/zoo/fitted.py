"""Trains a tiny checkpoint of any architecture on the prompts of the zoo, and says in its folder where that failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import first_line
from pytest_llmdevice.zoo.choices import clear_choices
from pytest_llmdevice.zoo.lessons import Tokens
from pytest_llmdevice.zoo.prompts import PROMPTS, TEXTS, continuations

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAID: Final = "llmdevice-choices.json"
"""The file of a checkpoint that says whether its choices are clear."""

NO_TOKENS: Final = "its tokenizer cannot be loaded here, or has no token for each of sixteen letters"


def train_choices(model: PreTrainedModel, seed: int, folder: Path | None = None) -> str | None:
    """Train the last matrices of `model` in place, until its choices after the prompts of the zoo are clear.

    Args:
        model: with generation defaults.
        seed: of the continuations.
        folder: where its tokenizer is, if that is another than the zoo's.

    Returns:
        Why that cannot be done, a clause; the model then is as it was. None where it is done.
    """
    prompts, answers = PROMPTS, continuations(seed)
    if folder is not None:
        encoded = _encoded(folder, answers)
        if encoded is None:
            return NO_TOKENS
        prompts, answers = encoded
    untyped: Any = model
    pad = untyped.generation_config.pad_token_id
    try:
        return clear_choices(model, prompts, answers, pad if isinstance(pad, int) and pad >= 0 else 0)
    except Exception as error:  # noqa: BLE001  # a class may refuse with anything
        return f"its forward pass raises {first_line(error)}"


def _encoded(folder: Path, answers: Sequence[Tokens]) -> tuple[tuple[Tokens, ...], tuple[Tokens, ...]] | None:
    """The texts, and `answers` with the tokens of letters in the place of bytes; None where letters have none."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        letters = {byte for answer in answers for byte in answer}
        tokens = {byte: tokenizer(chr(byte), add_special_tokens=False)["input_ids"][-1] for byte in sorted(letters)}
        prompts = tuple(tuple(tokenizer(text)["input_ids"]) for text in TEXTS)
    except Exception:  # noqa: BLE001  # whoever loads it meets the same, and says so
        return None
    if len(set(tokens.values())) < len(letters) or set(tokens.values()) & set(tokenizer.all_special_ids):
        return None
    return prompts, tuple(tuple(tokens[byte] for byte in answer) for answer in answers)


def say_choices(folder: Path, why: str | None) -> None:
    """Write to `folder` whether the choices of its checkpoint are clear, and if they are not, `why`."""
    content = {"clear": why is None, "why": why or ""}
    (folder / SAID).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def why_unclear(folder: Path) -> str | None:
    """Why the choices of the checkpoint in `folder` are not clear, a clause; None where they are."""
    file = folder / SAID
    return (json.loads(file.read_text(encoding="utf-8"))["why"] or None) if file.is_file() else None
