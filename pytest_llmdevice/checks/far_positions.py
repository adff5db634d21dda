"""Finds out whether logits are wrong because of how far from the start they are, and not because of what is there."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.differences import overall_error
from pytest_llmdevice.inference.generation import is_encoder_decoder
from pytest_llmdevice.inference.logits import logits_of
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.model.wrappers import accepted_arguments, runnable_module
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    import torch

APART: Final = 21
"""How far apart the positions are that a short text is given: rotary angles are about distances, so that a text that is
only moved says the same. It is odd, because bfloat16 knows the even numbers up to 512."""

FAR_FROM: Final = 260
"""Tokens of a text that has positions that bfloat16 does not know."""

BETTER: Final = 2.0
"""How much larger an error has to become to be told from chance."""


def wrong_at_far_positions(
    model: Any, tokens: Sequence[int], own: torch.Tensor, plain: torch.Tensor, checkpoint: str, cell: Cell, limit: float
) -> bool:
    """Whether it is the positions that make far logits wrong, by two trials for models that take position ids.

    Either a short text is wrong as soon as its positions are far apart (angles that were rounded), or the position ids
    that modules get for a long text do not go up by one (a model that counts them itself, in a half).

    Args:
        model: the model under test.
        tokens: token ids of a short text, with which a long one begins.
        own: the model's logits of the long text, of shape (positions, vocabulary).
        plain: a plain load's.
        checkpoint: the local folder of the model.
        cell: what was requested.
        limit: the largest relative error that is noise.
    """
    import torch

    if is_encoder_decoder(model) or "position_ids" not in accepted_arguments(model):
        return False
    near = overall_error([own[: len(tokens)]], [plain[: len(tokens)]])
    wanted = ask(_plain_apart, checkpoint, Cell("plain", "cpu", cell.dtype, cell.quantization), tuple(tokens))
    found = logits_at(model, tokens, torch.arange(len(tokens)) * APART)[:, : wanted.shape[-1]]
    far = overall_error([found], [wanted])
    if far > limit and far > BETTER * near:
        return True
    return _counted_otherwise(model, [*tokens] * (FAR_FROM // len(tokens) + 2))


def _counted_otherwise(model: Any, text: Sequence[int]) -> bool:
    """Whether a module of `model` is given position ids for `text` that do not go up by one."""
    import torch

    seen: list[torch.Tensor] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = list(inspect.signature(type(module).forward).parameters)[1:]
        found = {**dict(zip(names, args, strict=False)), **kwargs}.get("position_ids")
        if isinstance(found, torch.Tensor) and found.ndim == 2 and found.shape[1] == len(text):
            seen.append(found[0].detach().cpu())

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        logits_at(model, text, None)
    finally:
        for handle in handles:
            handle.remove()
    return any(bool((positions.double().diff() != 1).any()) for positions in seen)


def _plain_apart(checkpoint: str, cell: Cell, tokens: tuple[int, ...]) -> torch.Tensor:
    import torch

    return logits_at(from_pretrained(checkpoint, cell), tokens, torch.arange(len(tokens)) * APART)


def logits_at(model: Any, tokens: Sequence[int], positions: torch.Tensor | None) -> torch.Tensor:
    """The logits of `tokens` at `positions`, or where the model counts them to be; float32 on the CPU."""
    import torch

    device = embedding_device(model)
    ids = torch.tensor([list(tokens)], dtype=torch.long, device=device)
    given = {} if positions is None else {"position_ids": positions[None].to(device)}
    with torch.no_grad():
        output = runnable_module(model)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **given)
    return logits_of(output)[0].float().cpu()
