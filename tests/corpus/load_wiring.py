"""Ports that read every weight and wire them otherwise: a factor, a cap or a residual is not the configuration's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from corpus.case import Case
from corpus.load_values import plain
from pytest_llmdevice import Cell


@dataclass
class Wired:
    """Loads, and where `name` is given sets that attribute of all modules that have it, as a port wires it."""

    name: str = ""
    value: Any = None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        if self.name:
            found = [module for module in model.modules() if hasattr(module, self.name)]
            assert found, f"{type(model).__name__} has no {self.name}"
            for module in found:
                setattr(module, self.name, self.value)
        return model.eval()


@dataclass
class RotatesAll:
    """Rotates the whole head, or the part of it that the configuration says."""

    whole: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        if self.whole:
            config = model.config
            head = config.hidden_size // config.num_attention_heads
            powers = torch.arange(0, head, 2, dtype=torch.float32) / head
            for module in model.modules():
                if hasattr(module, "inv_freq"):
                    module.inv_freq = 1.0 / config.rope_parameters["rope_theta"] ** powers.to(cell.torch_device)
                if hasattr(module, "rotary_ndims"):
                    module.rotary_ndims = head
        return model.eval()


@dataclass
class Grown:
    """Rounds the vocabulary up to a multiple of 64, which it is already."""

    ceils: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        size = model.get_input_embeddings().num_embeddings
        wanted = -(-size // 64) * 64 if self.ceils else (size // 64 + 1) * 64
        if wanted != size:
            torch.manual_seed(0)
            model.resize_token_embeddings(wanted, mean_resizing=False)
        return model.eval()


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, missed: str = "") -> Case:
    return Case(name, "wiring", f"https://github.com/{source}", story, buggy, fixed, cells, missed=missed)


CASES = (
    _case(
        "scores-not-capped",
        "vllm-project/vllm-metal/issues/665",
        "the kernel is called with a cap of 0, and Gemma 2's attention scores are not capped",
        partial(Wired, "attn_logit_softcapping", None),
        Wired,
        Cell("gemma2", "cpu", "float32"),
    ),
    _case(
        "other-gelu",
        "NVIDIA-NeMo/Megatron-Bridge/pull/4661",
        "the exact gelu is taken for the model whose gelu is the approximate one",
        partial(Wired, "act_fn", nn.GELU()),
        Wired,
        Cell("gemma", "cpu", "float32"),
        Cell("gemma", "cpu", "bfloat16"),
    ),
    _case(
        "chosen-experts-sum-to-one",
        "lablup/mlxcel/pull/391",
        "the softmax is over the chosen experts only, for a model that does not divide by their sum",
        partial(Wired, "norm_topk_prob", True),
        Wired,
        Cell("olmoe", "cpu", "float32"),
    ),
    _case(
        "chosen-experts-not-normalized",
        "pytorch/torchtitan/issues/1448",
        "the weights of the chosen experts are not divided by their sum",
        partial(Wired, "norm_topk_prob", False),
        Wired,
        Cell("deepseek-v3", "cpu", "bfloat16"),
    ),
    _case(
        "routed-experts-not-scaled",
        "NVIDIA/TensorRT-Model-Connect/pull/669",
        "the factor of the routed experts is left out beside the shared one",
        partial(Wired, "routed_scaling_factor", 1.0),
        Wired,
        Cell("deepseek-v3", "cpu", "float32"),
    ),
    _case(
        "whole-head-rotated",
        "AI-Hypercomputer/maxtext/issues/4616",
        "the share of the head that rotates is ignored: all of it does",
        partial(RotatesAll, whole=True),
        partial(RotatesAll, whole=False),
        Cell("phi", "cpu", "float32"),
    ),
    _case(
        "residuals-one-after-the-other",
        "ml-explore/mlx-lm/pull/586",
        "attention and feed-forward are chained, in a model that has them side by side",
        partial(Wired, "use_parallel_residual", False),
        Wired,
        Cell("gpt-neox", "cpu", "float16"),
    ),
    _case(
        "logits-not-scaled",
        "vllm-project/vllm/pull/52158",
        "the factor of the logits is applied by the outer class, which is not used: the order of tokens stays",
        partial(Wired, "logit_scale", 1.0),
        Wired,
        Cell("cohere", "cpu", "bfloat16"),
    ),
    _case(
        "scores-not-scaled",
        "mlc-ai/mlc-llm/pull/3426",
        "the way without a kernel leaves the scores undivided",
        partial(Wired, "scaling", 1.0),
        Wired,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "yarn-without-its-factor",
        "turboderp-org/exllamav3/issues/259",
        "YaRN's frequencies are right, and its factor of attention comes out as 1",
        partial(Wired, "attention_scaling", 1.0),
        Wired,
        Cell("gpt-oss", "cpu", "float32"),
    ),
    _case(
        "vocabulary-one-step-too-large",
        "huggingface/transformers/pull/26102",
        "a vocabulary that is a multiple already is rounded up to the next one",
        partial(Grown, ceils=False),
        partial(Grown, ceils=True),
        Cell("qwen2", "cpu", "float32"),
        missed=(
            "whoever adds one token and rounds up to the same multiple has as many rows (Llama's 32000 become 32064), "
            "and which tokens a loader's tokenizer has added, the model does not say; no row is chosen either"
        ),
    ),
)
