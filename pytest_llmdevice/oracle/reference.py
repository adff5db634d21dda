"""Computes the outputs of a model on the CPU in float32, unquantized, which all its other cells are compared with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmdevice.inference.generation import inputs_for, pad_token
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.adapters import base_of, is_adapter
from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.stored_packed import running_load, stored_method
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.oracle.maker import maker_of
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Reference:
    """Outputs of the reference cell, each prompt run alone, so that no padding takes part.

    Attributes:
        logits: for each prompt, float32 of shape (length, vocabulary); see `logits.forward_logits`.
        tokens: for each prompt, the greedy new tokens.
        steps: for each prompt, the float32 logits each new token was chosen from, (new tokens, vocabulary).
    """

    logits: tuple[torch.Tensor, ...]
    tokens: tuple[tuple[int, ...], ...]
    steps: tuple[torch.Tensor, ...]


def reference(
    checkpoint: str, prompts: Sequence[Sequence[int]], max_new_tokens: int, folder: Path | None = None
) -> Reference:
    """The reference outputs of `checkpoint`, from `folder` if they are there.

    Computed with plain `from_pretrained`, never with the target, and in a process in which the target was never
    imported: one that is wrong in every cell, or that patches what a plain load is made of, would agree with itself.
    Kept on disk under a key of the files, the prompts and what made it, so that worker processes share one computation.
    A cache that cannot be written is done without.

    Raises:
        OracleError: that process cannot be had.
        Exception: what a plain load of `checkpoint`, or its generation, raises.
    """
    if folder is None:
        return ask(compute, checkpoint, prompts, max_new_tokens)
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ask(compute, checkpoint, prompts, max_new_tokens)
    if not os.access(folder, os.W_OK):
        return ask(compute, checkpoint, prompts, max_new_tokens)
    path = folder / f"{_key(checkpoint, prompts, max_new_tokens)}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            try:
                return _read(path, len(prompts))
            except (SafetensorError, KeyError):
                path.unlink()
        outputs = ask(compute, checkpoint, prompts, max_new_tokens)
        _write(path, outputs)
        return outputs


def compute(checkpoint: str, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Reference:
    """Load the reference cell of `checkpoint` and run it."""
    import torch

    if stored_method(checkpoint):
        model, _ = running_load(checkpoint, "float32")
    else:
        model = from_pretrained(checkpoint, Cell("reference", "cpu", "float32"))
    logits, tokens, steps = [], [], []
    for prompt in prompts:
        inputs = inputs_for(model, [prompt])
        logits.append(forward_logits(model, inputs)[0].float())
        with torch.no_grad():
            output = model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                min_new_tokens=max_new_tokens,
                pad_token_id=pad_token(model),
                return_dict_in_generate=True,
                output_logits=True,
            )
        steps.append(torch.stack([step[0].float() for step in output.logits]))
        tokens.append(tuple(output.sequences[0, -max_new_tokens:].tolist()))
    return Reference(tuple(logits), tuple(tokens), tuple(steps))


@cache
def logits_dtype(checkpoint: str, dtype: str) -> str:
    """The dtype of the logits of a plain load in `dtype` on the cpu: some classes (Mamba) always return float32."""
    return ask(_logits_dtype, checkpoint, dtype)


def _logits_dtype(checkpoint: str, dtype: str) -> str:
    model = from_pretrained(checkpoint, Cell("reference", "cpu", dtype))
    return dtype_name(forward_logits(model, inputs_for(model, [[1, 2]])).dtype)


def _key(checkpoint: str, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> str:
    identity = [
        *fingerprint(checkpoint),
        *(fingerprint(base_of(checkpoint)) if is_adapter(checkpoint) else ()),
        list(map(list, prompts)),
        max_new_tokens,
        maker_of(checkpoint),
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def _write(path: Path, outputs: Reference) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for number in range(len(outputs.logits)):
        tensors[f"logits.{number}"] = outputs.logits[number].contiguous()
        tensors[f"steps.{number}"] = outputs.steps[number].contiguous()
        tensors[f"tokens.{number}"] = torch.tensor(outputs.tokens[number])
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


def _read(path: Path, count: int) -> Reference:
    from safetensors.torch import load_file

    tensors = load_file(path)
    return Reference(
        tuple(tensors[f"logits.{number}"] for number in range(count)),
        tuple(tuple(tensors[f"tokens.{number}"].tolist()) for number in range(count)),
        tuple(tensors[f"steps.{number}"] for number in range(count)),
    )
