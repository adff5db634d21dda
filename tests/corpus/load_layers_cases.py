"""The cases of `load_layers`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from corpus.case import Case
from corpus.load_layers import (
    Runtime,
    alternating,
    attention,
    head,
    llama3_angles,
    partial_angles,
    shared_expert,
    sigmoid_router,
    softmax_router,
)
from pytest_llmdevice import Cell

GITHUB = "https://github.com"


def ported(
    name: str,
    source: str,
    story: str,
    kind: str,
    forwards: tuple[Callable[..., Any], Callable[..., Any]],
    *cells: Cell,
    machine: str = "",
) -> Case:
    """A case of a module class whose forward was written twice: wrong and right."""
    wrong, right = forwards
    return Case(
        name,
        "layers",
        f"{GITHUB}/{source}",
        story,
        partial(Runtime, kind, wrong),
        partial(Runtime, kind, right),
        cells,
        machine,
    )


CASES = (
    ported(
        "rope-factor-of-another-model",
        "NVIDIA/Megatron-LM/issues/6305",
        "the factor of Llama 3.1's positions is not read from the configuration: it is always that of Llama 3.2",
        "RotaryEmbedding",
        (llama3_angles(factor=32.0), llama3_angles(factor=None)),
        Cell("qwen2~rope-llama3", "cpu", "float32"),
        Cell("qwen2~rope-llama3", "cpu", "bfloat16"),
    ),
    ported(
        "shared-expert-without-its-gate",
        "NousResearch/torchtitan/pull/36",
        "the gate of the shared expert is loaded, and the forward pass no longer uses it",
        "SparseMoeBlock",
        (shared_expert(gated=False), shared_expert(gated=True)),
        Cell("qwen3-next", "cpu", "float32"),
        Cell("qwen3-next", "cpu", "bfloat16"),
    ),
    ported(
        "router-always-sigmoid",
        "1bit-MONSTER/1bit-MONSTER/issues/650",
        "which function scores experts is in the file and never read: it is a sigmoid for each",
        "TopKRouter",
        (softmax_router(sigmoid=True), softmax_router(sigmoid=False)),
        Cell("qwen3-moe", "cpu", "bfloat16"),
    ),
    ported(
        "scores-not-normalized",
        "PaddlePaddle/PaddleFormers/pull/2844",
        "the scores of the chosen experts do not add up to one where they come from a sigmoid",
        "TopkRouter",
        (sigmoid_router(normalized=False), sigmoid_router()),
        Cell("deepseek-v3", "cpu", "float32"),
        Cell("deepseek-v3", "cuda:0", "bfloat16", simulated=True),
        machine="cuda",
    ),
    ported(
        "routed-scale-twice",
        "vllm-project/vllm/pull/45037",
        "the routed scaling factor is in the weights of the experts already, and multiplied once more",
        "TopkRouter",
        (sigmoid_router(times=2), sigmoid_router()),
        Cell("deepseek-v3", "cpu", "bfloat16"),
    ),
    ported(
        "softcap-multiplies-the-logits",
        "unslothai/unsloth-zoo/pull/593",
        "the logits are multiplied with the tanh, and not the cap",
        "ForCausalLM",
        (
            head(lambda logits, cap: logits * torch.tanh(logits / cap)),
            head(lambda logits, cap: cap * torch.tanh(logits / cap)),
        ),
        Cell("gemma2", "cpu", "float32"),
    ),
    ported(
        "softcap-of-the-head-left-out",
        "NVIDIA-NeMo/Megatron-Bridge/pull/4645",
        "the final cap on the logits is not applied: the best token is the same, and its probability is not",
        "ForCausalLM",
        (head(lambda logits, _: logits), head(lambda logits, cap: cap * torch.tanh(logits / cap))),
        Cell("gemma2", "cpu", "float32"),
        Cell("gemma2", "cpu", "bfloat16"),
    ),
    ported(
        "softcap-of-scores-zero",
        "vllm-project/vllm-metal/issues/665",
        "the cap on attention scores is a constant that switches it off",
        "Attention",
        (attention(capped=False), attention()),
        Cell("gemma2", "cpu", "float32"),
        Cell("gemma2", "cpu", "bfloat16"),
    ),
    ported(
        "sinks-never-bound",
        "vllm-project/vllm-metal/pull/550",
        "the sinks are loaded, and the kernel is told that there are none",
        "Attention",
        (attention(sinks=False), attention()),
        Cell("gpt-oss", "cpu", "float32"),
        Cell("gpt-oss", "cpu", "bfloat16"),
    ),
    ported(
        "frequencies-over-the-whole-head",
        "pie-project/pie/pull/603",
        "a part of each head is rotated, with frequencies for the width of the head: right at position 0 only",
        "RotaryEmbedding",
        (partial_angles(width="head"), partial_angles(width="rotated")),
        Cell("phi", "cpu", "float32"),
    ),
    ported(
        "windows-on-the-other-layers",
        "NVIDIA-NeMo/Megatron-Bridge/pull/4875",
        "layers are numbered from one: those that see a window see all, and the others a window",
        "TextModel",
        (alternating(first=1), alternating(first=0)),
        Cell("gemma3", "cpu", "float32"),
        Cell("gemma3", "cpu", "bfloat16"),
    ),
    ported(
        "angles-of-the-other-layers",
        "huggingface/transformers/pull/45945",
        "layers with a window get the angles that are for layers without one",
        "TextModel",
        (alternating(first=1, positions=True), alternating(first=0)),
        Cell("gemma3", "cpu", "float32"),
    ),
)
