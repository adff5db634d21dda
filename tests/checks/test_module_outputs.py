"""A module that computes otherwise is found by itself, though logits are within their tolerance; kernels are not."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pytest_llmdevice import BuiltinTarget, Cell, zoo
from pytest_llmdevice.checks.module_outputs import module_findings
from pytest_llmdevice.checks.origin import origin_of
from pytest_llmdevice.diagnosis.hints.values import COMPUTED_OTHERWISE

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

Load = Callable[[Cell], Any]
Rows = list[list[int]]


def found(model: Any, checkpoint: str, cell: Cell, prompts: Rows) -> tuple[list[Any], dict[str, Any]]:
    findings, evidence = module_findings(model, checkpoint, cell, max(prompts, key=len))
    return list(findings), evidence


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", zoo.families())
def test_each_module_of_a_plain_load_agrees(
    family: str, dtype: str, load: Load, checkpoint: Callable[[str], str], prompts: Rows
) -> None:
    cell = Cell(family, "cpu", dtype)
    findings, evidence = found(load(cell), checkpoint(family), cell, prompts)
    assert findings == []
    assert evidence["modules by themselves"] >= 3
    assert "modules without a pair" not in evidence


def wide(folder: Path) -> str:
    """A gemma3 of a width whose root is no number in 16 bits."""
    source = Path(zoo.checkpoint("gemma3"))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(source)
    config.hidden_size = 192
    with torch.random.fork_rng():
        torch.manual_seed(1)
        auto: Any = AutoModelForCausalLM
        auto.from_config(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"] == 192
    return str(folder)


@pytest.mark.parametrize("exact", [False, True], ids=["rounded, as in training", "exact"])
def test_an_embedding_scale_that_is_not_rounded_is_found(exact: bool, tmp_path: Path, prompts: Rows) -> None:
    folder, cell = wide(tmp_path), Cell("path:wide", "cpu", "bfloat16")
    model: Any = BuiltinTarget().load(folder, cell)
    embedding: Any = model.get_input_embeddings()
    scale = torch.tensor(192**0.5, dtype=torch.float32 if exact else torch.bfloat16)

    def forward(self: Any, ids: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = (functional.embedding(ids, self.weight) * scale).to(self.weight.dtype)
        if exact:
            made = (functional.embedding(ids, self.weight).float() * scale).to(self.weight.dtype)
        return made

    embedding.forward = MethodType(forward, embedding)
    findings, _ = found(model, folder, cell, prompts)
    assert [(finding.where, finding.hint) for finding in findings] == (
        [("model.embed_tokens", COMPUTED_OTHERWISE)] if exact else []
    )


def norm(order: str, eps: float | None = None) -> Callable[[Any, Any], Any]:
    def forward(self: Any, hidden: Any) -> Any:
        dtype, values = hidden.dtype, hidden.float()
        if order == "in half":
            return self.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))
        if order == "another sum":
            mean = values.flip(-1).square().sum(-1, keepdim=True) / hidden.shape[-1]
            return self.weight * (values / torch.sqrt(mean + self.variance_epsilon)).to(dtype)
        values = values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + (eps or self.variance_epsilon))
        return self.weight * values.to(dtype) if order == "cast first" else (self.weight.float() * values).to(dtype)

    return forward


def rotary_in_half(self: Any, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = position_ids[:, :, None].to(hidden.dtype) * self.inv_freq.to(hidden.dtype)
    table = torch.cat((angles, angles), dim=-1)
    return table.cos(), table.sin()


def rotary(self: Any, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.einsum("bt,d->btd", position_ids.float(), self.inv_freq)
    table = torch.cat((angles, angles), dim=-1)
    return table.cos().to(hidden.dtype), table.sin().to(hidden.dtype)


def gelu(approximate: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    return lambda _, hidden: functional.gelu(hidden, approximate=approximate)


def gelu_by_hand(_: Any, hidden: torch.Tensor) -> torch.Tensor:
    values = hidden.float()
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values.pow(3))
    return (0.5 * values * (1 + torch.tanh(inner))).to(hidden.dtype)


def linear(how: str) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        if how == "in half":
            return functional.linear(hidden.bfloat16(), self.weight.bfloat16()).to(hidden.dtype)
        # As a kernel that splits the sum does.
        middle = hidden.shape[-1] // 2
        parts = [(hidden[..., part], self.weight[:, part]) for part in (slice(middle), slice(middle, None))]
        first, second = (functional.linear(values.float(), weight.float()) for values, weight in parts)
        return (second + first).to(hidden.dtype)

    return forward


def attention(how: str) -> Callable[..., Any]:
    def forward(self: Any, hidden_states: torch.Tensor, position_embeddings: Any, attention_mask: Any, **_: Any) -> Any:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if how == "through half":
            query, key = query.half().to(query.dtype), key.half().to(key.dtype)
        key, value = (each.repeat_interleave(self.num_key_value_groups, 1) for each in (key, value))
        scale = self.scaling * (1.0005 if how == "another scale" else 1)
        if how == "fused":
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        else:
            weights = torch.softmax(query @ key.transpose(2, 3) * scale + attention_mask, -1, dtype=torch.float32)
            seen = weights.to(query.dtype) @ value
        return self.o_proj(seen.transpose(1, 2).reshape(*hidden_states.shape[:-1], -1)), None

    return forward


def router(*, early: bool) -> Callable[[Any, torch.Tensor], Any]:
    def forward(self: Any, hidden: torch.Tensor) -> Any:
        logits = functional.linear(hidden.reshape(-1, self.hidden_dim), self.weight)
        shares = logits.softmax(-1, dtype=torch.float32)
        shares = shares.to(hidden.dtype) if early else shares
        best, which = shares.topk(self.top_k, dim=-1)
        return logits, (best / best.sum(-1, keepdim=True)).to(hidden.dtype), which

    return forward


HALF, FULL = "bfloat16", "float32"
CASES = {
    "product in half": ("llama", FULL, "model.layers.1.mlp.up_proj", linear("in half"), 1),
    "product, another sum": ("llama", FULL, "model.layers.1.mlp.up_proj", linear("split"), 0),
    "product, another sum, in half": ("llama", HALF, "model.layers.1.mlp.up_proj", linear("split"), 0),
    "routing that is rounded at its end": ("mixtral", HALF, "model.layers.0.mlp.gate", router(early=False), 0),
    "attention with another scale": ("llama", FULL, "model.layers.1.self_attn", attention("another scale"), 1),
    "attention through half": ("llama", FULL, "model.layers.1.self_attn", attention("through half"), 1),
    "attention of one's own": ("llama", FULL, "model.layers.1.self_attn", attention("right"), 0),
    "attention, fused": ("llama", FULL, "model.layers.1.self_attn", attention("fused"), 0),
    "attention, fused, in half": ("llama", HALF, "model.layers.1.self_attn", attention("fused"), 0),
    # What 1e-2 changes is at the edge of what bfloat16 rounds: seen on processors of one maker, and not of another.
    "norm, another epsilon, in half": ("llama", HALF, "model.norm", norm("cast first", 3e-2), 1),
    "norm, another epsilon": ("llama", FULL, "model.norm", norm("cast first", 1e-3), 1),
    "norm in half": ("llama", HALF, "model.norm", norm("in half"), 1),
    "norm that casts last": ("llama", HALF, "model.norm", norm("cast last"), 1),
    "norm of one's own": ("llama", HALF, "model.norm", norm("cast first"), 0),
    "norm, another sum, in half": ("llama", HALF, "model.norm", norm("another sum"), 0),
    "norm, another sum": ("llama", FULL, "model.norm", norm("another sum"), 0),
    "positions in half": ("llama", HALF, "model.rotary_emb", rotary_in_half, 1),
    "positions of one's own": ("llama", HALF, "model.rotary_emb", rotary, 0),
    "gelu, exact": ("gemma3", HALF, "model.layers.0.mlp.act_fn", gelu("none"), 1),
    "gelu, exact, in float32": ("gemma3", FULL, "model.layers.0.mlp.act_fn", gelu("none"), 1),
    "gelu by hand": ("gemma3", FULL, "model.layers.0.mlp.act_fn", gelu_by_hand, 0),
}


@pytest.mark.parametrize(("family", "dtype", "name", "forward", "count"), CASES.values(), ids=CASES)
def test_what_a_module_computes_is_held_to_the_plain_load_s(
    family: str,
    dtype: str,
    name: str,
    forward: Any,
    count: int,
    load: Load,
    checkpoint: Callable[[str], str],
    prompts: Rows,
) -> None:
    cell = Cell(family, "cpu", dtype)
    model = load(cell)
    module = model.get_submodule(name)
    module.forward = MethodType(forward, module)
    findings, _ = found(model, checkpoint(family), cell, prompts)
    assert [finding.where for finding in findings] == [name] * count


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "t5"])
def test_other_kernels_of_attention_are_right(
    family: str, implementation: str, dtype: str, load: Load, checkpoint: Callable[[str], str], prompts: Rows
) -> None:
    cell = Cell(family, "cpu", dtype)
    model = load(cell)
    model.set_attn_implementation(implementation)
    assert found(model, checkpoint(family), cell, prompts)[0] == []


def test_the_origin_is_the_module_that_is_wrong_by_itself(
    load: Load, checkpoint: Callable[[str], str], prompts: Rows
) -> None:
    # Too small to show in the layer, and in the end three times what a few roundings are.
    cell = Cell("llama", "cpu", FULL)
    model = load(cell)
    module = model.get_submodule("model.layers.0.self_attn")
    module.forward = MethodType(attention("another scale"), module)
    said = origin_of(model, checkpoint("llama"), cell, max(prompts, key=len))
    assert said.startswith("first differs at model.layers.0.self_attn (LlamaAttention), given the same: expected ")


def test_a_module_of_another_class_is_left_out_and_counted(
    load: Load, checkpoint: Callable[[str], str], prompts: Rows
) -> None:
    cell = Cell("llama", "cpu", "bfloat16")
    model = load(cell)
    own = nn.RMSNorm(model.config.hidden_size, eps=model.config.rms_norm_eps, dtype=torch.bfloat16)
    own.weight = model.model.norm.weight
    model.model.norm = own
    findings, evidence = found(model, checkpoint("llama"), cell, prompts)
    assert findings == []
    assert evidence["modules without a pair"] == 1


@pytest.mark.parametrize(
    "cell",
    [Cell("llama", "cpu", "bfloat16", "nf4"), Cell("llama", "cuda:0", "bfloat16", simulated=True)],
    ids=["packed", "on a card"],
)
def test_elsewhere_nothing_is_compared(cell: Cell, prompts: Rows) -> None:
    assert found(nn.Linear(1, 1), "nowhere", cell, prompts) == ([], {})
