"""Where the models of the zoo are."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from pytest_llmdevice import zoo
from pytest_llmdevice.zoo.families import VOCAB_SIZE


@cache
def checkpoint(model: str) -> str:
    """The local folder of a model of the zoo; ask for it outside of a simulation."""
    return str(zoo.checkpoint(model))


def bart_decoder(folder: Path) -> str:
    """Bart as a decoder, in `folder`: its positions count padding, so that a padded prompt says something else."""
    import torch
    from transformers import AutoModelForCausalLM, BartConfig

    sizes: dict[str, Any] = {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128}
    torch.manual_seed(0)
    config = BartConfig(vocab_size=VOCAB_SIZE, is_encoder_decoder=False, is_decoder=True, encoder_layers=2, **sizes)
    automatic: Any = AutoModelForCausalLM
    automatic.from_config(config).eval().save_pretrained(folder)
    for file in Path(checkpoint("llama")).glob("*token*"):
        shutil.copy(file, folder)
    return str(folder)
