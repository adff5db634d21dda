"""Models whose layers were written anew for another runtime: weights are right, and a line of the forward is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from pytest_llmdevice import Cell


@dataclass
class Runtime:
    """Loads a model, and puts forwards of its own into the modules of one class."""

    kind: str
    forward: Callable[..., Any]

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, attn_implementation="eager")
        for module in (each for each in model.modules() if type(each).__name__.endswith(self.kind)):
            module.forward = MethodType(self.forward, module)
        return model.to(cell.torch_device).eval()


def llama3_angles(*, factor: float | None) -> Callable[..., Any]:
    """Rotary angles of Llama 3.1 and later; `factor` is that of another model of the family."""

    def forward(self: Any, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said = self.config.rope_parameters
        size = self.config.hidden_size // self.config.num_attention_heads
        plain = said["rope_theta"] ** -(torch.arange(0, size, 2).float() / size)
        waves, original = 2 * torch.pi / plain, said["original_max_position_embeddings"]
        low, high = original / said["low_freq_factor"], original / said["high_freq_factor"]
        slow = plain / (factor or said["factor"])
        share = (original / waves - said["low_freq_factor"]) / (said["high_freq_factor"] - said["low_freq_factor"])
        between = (1 - share) * slow + share * plain
        angles = torch.where(waves > low, slow, torch.where(waves < high, plain, between)).to(hidden.device)
        table = (position_ids[..., None].float() * angles).repeat(1, 1, 2)
        return table.cos().to(hidden.dtype), table.sin().to(hidden.dtype)

    return forward


def shared_expert(*, gated: bool) -> Callable[..., Any]:
    """Experts beside one that every token sees, whose gate may be left out."""

    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        _, weights, chosen = self.gate(rows)
        shared = self.shared_expert(rows)
        if gated:
            shared = torch.sigmoid(self.shared_expert_gate(rows)) * shared
        return (self.experts(rows, chosen, weights) + shared).view_as(hidden)

    return forward


def softmax_router(*, sigmoid: bool) -> Callable[..., Any]:
    """A router for models whose scores are a distribution over experts, or, always, one sigmoid for each."""

    def forward(self: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = functional.linear(hidden.reshape(-1, self.hidden_dim), self.weight)
        scores = logits.float().sigmoid() if sigmoid else logits.float().softmax(-1)
        best, chosen = scores.topk(self.top_k, dim=-1)
        if self.norm_topk_prob:
            best = best / best.sum(-1, keepdim=True)
        return logits, best.to(logits.dtype), chosen

    return forward


def sigmoid_router(*, normalized: bool = True, times: int = 1) -> Callable[..., Any]:
    """DeepSeek's router: the chosen scores are made to add up to one, then scaled, both once."""

    def forward(self: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = hidden.reshape(-1, self.hidden_dim)
        logits = functional.linear(rows.float(), self.weight.float())
        scores = logits.sigmoid()
        chosen = (scores + self.e_score_correction_bias).topk(self.top_k, dim=-1, sorted=False).indices
        best = scores.gather(1, chosen)
        if normalized:
            best = best / (best.sum(-1, keepdim=True) + 1e-20)
        return logits, best * self.routed_scaling_factor**times, chosen

    return forward


Cap = Callable[[torch.Tensor, float], torch.Tensor]


def head(cap: Cap) -> Callable[..., Any]:
    """The last step of Gemma 2, with a soft cap on the logits."""

    def forward(self: Any, input_ids: Any = None, logits_to_keep: int = 0, **given: Any) -> CausalLMOutputWithPast:
        output = self.model(input_ids=input_ids, **given)
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        logits = cap(logits, self.config.final_logit_softcapping)
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)

    return forward


def attention(*, capped: bool = True, sinks: bool = True) -> Callable[..., Any]:
    """Attention of Gemma 2 and gpt-oss, with what either has: a soft cap on scores, sinks that take a share."""

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        position_embeddings: Any,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = sys.modules[type(self).__module__].apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        key, value = (each.repeat_interleave(self.num_key_value_groups, 1) for each in (key, value))
        scores = query @ key.transpose(2, 3) * self.scaling
        cap = getattr(self, "attn_logit_softcapping", None)
        if cap and capped:
            scores = torch.tanh(scores / cap) * cap
        if attention_mask is not None:
            scores = scores + attention_mask[..., : key.shape[2]]
        if sinks and hasattr(self, "sinks"):
            sink = self.sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
            scores = torch.cat([scores, sink], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., : key.shape[2]]
        seen = (weights @ value).transpose(1, 2).reshape(*hidden_states.shape[:-1], -1)
        return self.o_proj(seen), None

    return forward


def partial_angles(*, width: str) -> Callable[..., Any]:
    """Frequencies for heads of which a part is rotated: over the width of that part, or of the head."""

    def forward(self: Any, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.config.hidden_size // self.config.num_attention_heads
        rotated = int(size * self.config.rope_parameters["partial_rotary_factor"])
        over = rotated if width == "rotated" else size
        angles = self.config.rope_parameters["rope_theta"] ** -(torch.arange(0, rotated, 2).float() / over)
        table = (position_ids[..., None].float() * angles.to(hidden.device)).repeat(1, 1, 2)
        return table.cos().to(hidden.dtype), table.sin().to(hidden.dtype)

    return forward


def alternating(*, first: int, positions: bool = False) -> Callable[..., Any]:
    """A stack of layers that see a window and layers that see all, in turn, beginning with one or the other.

    With `positions`, it is the angles that go by the wrong kind of layer, and masks are right.
    """

    def forward(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> Any:
        own = sys.modules[type(self).__module__]
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if past_key_values is None and use_cache is not False:
            past_key_values = own.DynamicCache(config=self.config)
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(hidden.shape[1], device=hidden.device) + past)[None]
        known = {
            "config": self.config,
            "inputs_embeds": hidden,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "position_ids": position_ids,
        }
        masks = attention_mask
        if not isinstance(masks, dict):
            masks = {
                "full_attention": own.create_causal_mask(**known),
                "sliding_attention": own.create_sliding_window_causal_mask(**known),
            }
        kinds = ("sliding_attention", "full_attention")
        angles = {kind: self.rotary_emb(hidden, position_ids, kind) for kind in kinds}
        for number, layer in enumerate(self.layers):
            kind, right = kinds[(number + first) % 2], kinds[number % 2]
            hidden = layer(
                hidden,
                attention_mask=masks[right if positions else kind],
                position_embeddings=angles[kind if positions else right],
                position_ids=position_ids,
                past_key_values=past_key_values,
            )
        return own.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=past_key_values)

    return forward
