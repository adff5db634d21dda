"""A decoder of one's own in the manner of nanoGPT, with names of its own: it reads a Llama's files."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

NAMES = {
    "model.embed_tokens": "wte",
    "model.layers": "h",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "mix",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
    "post_attention_layernorm": "ln_2",
    "input_layernorm": "ln_1",
    "model.norm": "ln_f",
    "lm_head": "out",
}


class Norm(nn.Module):
    def __init__(self, size, epsilon):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(size)), epsilon

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)).to(x.dtype) * self.weight


def turned(x, base):
    half, length = x.shape[-1] // 2, x.shape[-2]
    rates = base ** -(torch.arange(half, device=x.device).float() / half)
    angle = torch.outer(torch.arange(length, device=x.device).float(), rates).repeat(1, 2)
    swapped = torch.cat([-x[..., half:], x[..., :half]], -1)
    return (x.float() * angle.cos() + swapped.float() * angle.sin()).to(x.dtype)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.c = c["hidden_size"], c
        self.head = c.get("head_dim") or width // c["num_attention_heads"]
        inner, outer = c["num_attention_heads"] * self.head, c["num_key_value_heads"] * self.head
        self.ln_1, self.ln_2 = Norm(width, c["rms_norm_eps"]), Norm(width, c["rms_norm_eps"])
        self.query, self.mix = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.key, self.value = nn.Linear(width, outer, bias=False), nn.Linear(width, outer, bias=False)
        self.gate, self.up = (nn.Linear(width, c["intermediate_size"], bias=False) for _ in range(2))
        self.down = nn.Linear(c["intermediate_size"], width, bias=False)

    def forward(self, x):
        y, base = self.ln_1(x), self.c["rope_parameters"]["rope_theta"]
        q, k, v = (p(y).unflatten(-1, (-1, self.head)).transpose(1, 2) for p in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(
            turned(q, base), turned(k, base), v, is_causal=True, enable_gqa=True
        )
        x = x + self.mix(y.transpose(1, 2).flatten(2))
        y = self.ln_2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.h = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.ln_f, self.out = Norm(c["hidden_size"], c["rms_norm_eps"]), nn.Linear(*self.wte.weight.T.shape, bias=False)

    def forward(self, idx):
        x = self.wte(idx)
        for block in self.h:
            x = block(x)
        return self.out(self.ln_f(x))


def load(checkpoint, cell):
    model = Decoder(json.loads((Path(checkpoint) / "config.json").read_text()))
    weights = load_file(Path(checkpoint) / "model.safetensors")
    for theirs, ours in NAMES.items():
        weights = {name.replace(theirs, ours): weight for name, weight in weights.items()}
    model.load_state_dict(weights)
    return model.to(cell.device, cell.torch_dtype).eval()


@torch.no_grad()
def generate(loaded, prompts, max_new_tokens):
    rows = [torch.tensor([prompt], device=loaded.wte.weight.device) for prompt in prompts]
    for number, start in enumerate(rows):
        row = start
        for _ in range(max_new_tokens):
            row = torch.cat([row, loaded(row)[:, -1:].argmax(-1)], 1)
        rows[number] = row[:, start.shape[1] :]
    return [row[0].tolist() for row in rows]
