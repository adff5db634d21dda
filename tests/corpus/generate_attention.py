"""Attention of one's own: masks that are on the wrong device, in the wrong dtype, or not there."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig
from transformers.masking_utils import eager_mask

from corpus.case import Case
from corpus.generating import Prompts, Served, load_model, new_tokens
from pytest_llmdevice import Cell


def _repeated(states: torch.Tensor, module: Any) -> torch.Tensor:
    return states.repeat_interleave(getattr(module, "num_key_value_groups", 1), dim=1)


def _attend(scores: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def masked_by_hand(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """A causal mask made at every call, on the default device."""
    key, value = _repeated(key, module), _repeated(value, module)
    rows, columns = query.shape[-2], key.shape[-2]
    seen = torch.ones(rows, columns, dtype=torch.bool).tril(diagonal=columns - rows)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, torch.finfo(query.dtype).min)
    return _attend(scores if mask is None else scores + mask, value)


def masked_beside_the_query(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """The same, beside the query."""
    key, value = _repeated(key, module), _repeated(value, module)
    rows, columns = query.shape[-2], key.shape[-2]
    seen = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(diagonal=columns - rows)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, torch.finfo(query.dtype).min)
    return _attend(scores if mask is None else scores + mask, value)


def unmasked(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """Hands the padding to PyTorch's attention and forgets that a decoder does not look ahead."""
    key, value = _repeated(key, module), _repeated(value, module)
    padding = None if mask is None else mask[:, :, -1:] > -1
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, padding, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


def causal_without_mask_only(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """Causal where nothing is padded; where something is, only the padding is masked."""
    visible = mask[:, :, -1:] > -1
    if bool(visible.all()):
        return with_mask(module, query, key, value, mask, scaling)
    key, value = _repeated(key, module), _repeated(value, module)
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, visible, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


def never_cast_back(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """A softmax in float32 that stays in float32."""
    key, value = _repeated(key, module), _repeated(value, module)
    scores = query @ key.transpose(-1, -2) * scaling
    scores = scores if mask is None else scores + mask
    return (torch.softmax(scores, dim=-1, dtype=torch.float32) @ value).transpose(1, 2).contiguous(), None


def with_mask(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """What the masks of transformers' eager attention are for."""
    key, value = _repeated(key, module), _repeated(value, module)
    scores = query @ key.transpose(-1, -2) * scaling
    return _attend(scores if mask is None else scores + mask, value)


for _function in (
    masked_by_hand,
    masked_beside_the_query,
    unmasked,
    causal_without_mask_only,
    never_cast_back,
    with_mask,
):
    AttentionInterface.register(f"corpus_{_function.__name__}", _function)
    AttentionMaskInterface.register(f"corpus_{_function.__name__}", eager_mask)
AttentionInterface.register("corpus_without_its_mask", masked_beside_the_query)


class OwnAttention(Served):
    """Loads with an attention that the project registered."""

    attention = "corpus_with_mask"

    def load(self, checkpoint: str, cell: Cell) -> Any:
        super().load(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        self.device = cell.torch_device
        return load_model(checkpoint, cell, attn_implementation=self.attention)

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])


class MaskOnTheDefaultDevice(OwnAttention):
    attention = "corpus_masked_by_hand"


class MaskBesideTheQuery(OwnAttention):
    attention = "corpus_masked_beside_the_query"


class LooksAhead(OwnAttention):
    attention = "corpus_unmasked"


class LooksAheadWhenPadded(OwnAttention):
    attention = "corpus_causal_without_mask_only"


class SoftmaxNeverCastBack(OwnAttention):
    attention = "corpus_never_cast_back"


class MaskNeverMade(OwnAttention):
    """Registers its attention and not the function that makes the mask for it: transformers then makes none."""

    attention = "corpus_without_its_mask"


class WindowIgnored(OwnAttention):
    """Clears the window, so that an attention without one can be used."""

    attention = "eager"

    def load(self, checkpoint: str, cell: Cell) -> Any:
        super().load(checkpoint, cell)
        config = AutoConfig.from_pretrained(checkpoint)
        self.change(config)
        return load_model(checkpoint, cell, config=config, attn_implementation=self.attention)

    def change(self, config: Any) -> None:
        config.sliding_window = None


class WindowKept(WindowIgnored):
    def change(self, config: Any) -> None:
        pass


class MinimumOfFloat32(OwnAttention):
    """Adds float32's smallest number in a half: it becomes minus infinity, and a row of padding becomes NaN."""

    attention = "eager"

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        inner = model.forward

        def forward(input_ids: Any = None, attention_mask: Any = None, past_key_values: Any = None, **rest: Any) -> Any:
            if attention_mask is not None and attention_mask.ndim == 2:
                rows, columns = input_ids.shape[1], attention_mask.shape[1]
                seen = torch.ones(rows, columns, device=input_ids.device).tril(diagonal=columns - rows)
                seen = seen * attention_mask[:, None, None, :]
                attention_mask = ((1 - seen) * self.smallest(model.dtype)).to(model.dtype)
            return inner(input_ids=input_ids, attention_mask=attention_mask, past_key_values=past_key_values, **rest)

        model.forward = forward
        return model

    def smallest(self, dtype: torch.dtype) -> float:
        return torch.finfo(torch.float32).min


class MinimumOfTheModelsDtype(MinimumOfFloat32):
    def smallest(self, dtype: torch.dtype) -> float:
        return torch.finfo(dtype).min


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "attention", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "causal-mask-on-the-cpu",
        "InfiniTensor/llaisys/pull/11",
        "torch.ones(rows, columns).tril() is made on the default device at every call",
        MaskOnTheDefaultDevice,
        MaskBesideTheQuery,
        Cell("llama", "cuda:0", "float16", simulated=True),
        machine="rocm-dcu",
    ),
    _case(
        "attention-looks-ahead",
        "moojink/openvla-oft/issues/89",
        "the mask is the padding's alone: every token sees the ones behind it",
        LooksAhead,
        OwnAttention,
        Cell("qwen3", "cpu", "float32"),
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "attention-looks-ahead-when-padded",
        "huggingface/transformers/pull/41966",
        "causal masking is switched off wherever a padding mask is given",
        LooksAheadWhenPadded,
        OwnAttention,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "softmax-never-cast-back",
        "intel/ipex-llm/pull/10609",
        "the softmax is float32, the values bfloat16, and nobody casts the weights back",
        SoftmaxNeverCastBack,
        OwnAttention,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
    _case(
        "mask-never-made",
        "huggingface/transformers/pull/45811",
        "an own attention without its mask function gets none, and padding is seen",
        MaskNeverMade,
        MaskBesideTheQuery,
        Cell("qwen3-moe", "cpu", "float32"),
    ),
    _case(
        "window-ignored",
        "unslothai/unsloth/pull/8253",
        "a model with a sliding window attends to its whole history",
        WindowIgnored,
        WindowKept,
        Cell("mistral", "cpu", "float32"),
    ),
    _case(
        "minimum-of-float32",
        "huggingface/transformers/pull/17306",
        "masked scores get float32's minimum in a float16 model: rows of padding are NaN",
        MinimumOfFloat32,
        MinimumOfTheModelsDtype,
        Cell("llama", "cpu", "float16"),
    ),
)
