"""The same decoder; `names` says what its tensors are in the checkpoint, so that nothing need be guessed."""

from own_model import generate, load  # noqa: F401  # of the target too

names = {
    "wte": "model.embed_tokens",
    "h.*.query": "model.layers.*.self_attn.q_proj",
    "h.*.key": "model.layers.*.self_attn.k_proj",
    "h.*.value": "model.layers.*.self_attn.v_proj",
    "h.*.mix": "model.layers.*.self_attn.o_proj",
    "h.*.gate": "model.layers.*.mlp.gate_proj",
    "h.*.up": "model.layers.*.mlp.up_proj",
    "h.*.down": "model.layers.*.mlp.down_proj",
    "h.*.ln_1": "model.layers.*.input_layernorm",
    "h.*.ln_2": "model.layers.*.post_attention_layernorm",
    "ln_f": "model.norm",
    "out": "lm_head",
}
