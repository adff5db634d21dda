"""A loader that changes a weight on purpose: `expected` gives what the model should be instead of the checkpoint."""

import torch
from transformers import AutoModelForCausalLM


def edited(model):
    with torch.no_grad():
        model.lm_head.weight[65:91] *= 2
    return model


def load(checkpoint, cell):
    return edited(AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)).to(cell.device)


def expected(checkpoint, cell):
    return edited(AutoModelForCausalLM.from_pretrained(checkpoint))
