"""Runs a loaded model on prompts: pads the batch, puts it on the right device, and generates greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.inference.texts import ids_of_texts
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.model.own import member, of_checkpoint, whole_of
from pytest_llmdevice.model.wrappers import configuration_of, core, generating_module, is_of_transformers

if TYPE_CHECKING:
    import torch

DEFAULT_PAD = 0
"""The padding id for a model that defines none; any id works, because padding is masked."""


def pad_token(model: Any) -> int:
    """The token id for padding a batch: the model's own, else `DEFAULT_PAD`."""
    for source in token_settings(model):
        token = getattr(source, "pad_token_id", None)
        if isinstance(token, int):
            return token
    return DEFAULT_PAD


def token_settings(model: Any) -> tuple[Any, ...]:
    """What may say which tokens pad, begin and end a text, the first that does counts.

    The generation configuration of the model, its configuration, and of a model that has none the checkpoint's.
    """
    inner = core(model)
    config = configuration_of(model)
    return getattr(inner, "generation_config", None), of_checkpoint(model) if config is None else config


def begin_tokens(model: Any) -> set[int]:
    """The tokens with which texts begin, by all that says so: a decoder's, and what a tokenizer puts in front."""
    names = ("bos_token_id", "decoder_start_token_id")
    found = (getattr(source, name, None) for source in token_settings(model) for name in names)
    return {token for token in found if isinstance(token, int)}


def end_tokens(model: Any) -> set[int]:
    """The tokens that end a sequence, by the model's generation configuration, or else by its own."""
    for source in token_settings(model):
        token = getattr(source, "eos_token_id", None)
        if token is not None:
            return set(token) if isinstance(token, (list, tuple)) else {token}
    return set()


def batch(
    prompts: Sequence[Sequence[int]], *, pad: int, device: torch.device, left: bool = True
) -> dict[str, torch.Tensor]:
    """Pad prompts to `input_ids` and `attention_mask`, both int64 of shape (prompts, longest prompt).

    Args:
        prompts: token ids of each prompt.
        pad: the token id for padding.
        device: the device of the tensors.
        left: whether to pad on the left, as decoders need it, or on the right, as encoders do.
    """
    import torch

    longest = max(map(len, prompts))
    ids, mask = [], []
    for prompt in prompts:
        gap = longest - len(prompt)
        row, ones = list(prompt), [1] * len(prompt)
        ids.append([pad] * gap + row if left else row + [pad] * gap)
        mask.append([0] * gap + ones if left else ones + [0] * gap)
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long, device=device),
        "attention_mask": torch.tensor(mask, dtype=torch.long, device=device),
    }


def is_encoder_decoder(model: Any) -> bool:
    """Whether the model is an encoder-decoder, which reads the prompt with its encoder."""
    return bool(getattr(configuration_of(model), "is_encoder_decoder", False))


def inputs_for(model: Any, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Pad `prompts` to a batch for `model`, on the device of its embedding."""
    return batch(prompts, pad=pad_token(model), device=embedding_device(model), left=not is_encoder_decoder(model))


def generate(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """Generate exactly `max_new_tokens` new tokens for each prompt, greedily; returns a list for each prompt."""
    import torch

    if not callable(getattr(generating_module(model), "generate", None)) or not is_of_transformers(model):
        return _by_logits(model, prompts, max_new_tokens)
    inputs = inputs_for(model, prompts)
    # A wrapper without `generate` of its own (DataParallel) contains a module that has it.
    with torch.no_grad():
        output = generating_module(model).generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            min_new_tokens=max_new_tokens,
            pad_token_id=pad_token(model),
        )
    # A decoder's output starts with the prompt, an encoder-decoder's with one start token.
    start = 1 if is_encoder_decoder(model) else inputs["input_ids"].shape[1]
    return [row.tolist() for row in output[:, start:].cpu()]


def _by_logits(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """The same for a model without `generate` of transformers: the likeliest token, one prompt after another."""
    from pytest_llmdevice.inference.logits import forward_logits

    rows = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(max_new_tokens):
            text.append(int(forward_logits(model, inputs_for(model, [text]))[0, -1].argmax()))
        rows.append(text[len(prompt) :])
    return rows


def generate_with(target: Any, model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Any:
    """Return what the target's `generate` returns, or the built-in `generate` for a target without one.

    Each call gets new lists, so that a target that pads in place does not change the prompts of the next call.
    """
    own = getattr(target, "generate", None)
    given = [list(prompt) for prompt in prompts]
    if own is None and (text := member(target, "generate_text")) is not None:
        return ids_of_texts(text, member(target, "prompt_ids"), model, given, max_new_tokens)
    output = own(whole_of(model), given, max_new_tokens) if own else generate(model, given, max_new_tokens)
    # A Python generator can be read only once, and several checks read the output.
    return list(output) if isinstance(output, Iterator) else output


def generate_one_by_one(target: Any, model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Any]:
    """Call `generate_with` for each prompt separately; returns the first row of each output, None for an empty one."""
    alone = []
    for prompt in prompts:
        output = generate_with(target, model, [prompt], max_new_tokens)
        rows = list(output) if hasattr(output, "__iter__") and not isinstance(output, str) else []
        alone.append(rows[0] if rows else None)
    return alone
