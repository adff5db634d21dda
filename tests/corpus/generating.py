"""What the generating targets share: a correct load, and batches padded on the left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pytest_llmdevice import Cell

if TYPE_CHECKING:
    import torch

Prompts = list[list[int]]


def load_model(checkpoint: str, cell: Cell, **options: Any) -> Any:
    """The checkpoint as the cell asks, whole or in halves over two cards."""
    options.setdefault("dtype", cell.torch_dtype)
    if cell.quantization == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif cell.quantization != "none":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="fp4" if cell.quantization == "fp4" else "nf4",
            bnb_4bit_use_double_quant=cell.quantization == "nf4-double",
            bnb_4bit_compute_dtype=cell.torch_dtype,
        )
    if cell.strategy == "split":
        options["device_map"] = halves(cell.index)
    elif cell.strategy == "device-map" or "quantization_config" in options:
        options["device_map"] = {"": cell.device}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, **options)
    if "device_map" not in options:
        model.to(cell.torch_device)
    return model.eval()


def halves(first: int) -> dict[str, int]:
    """A map for a model of two layers: the first and what is before it on card `first`, the rest on the other."""
    second = 1 - first
    return {
        "model.embed_tokens": first,
        "model.rotary_emb": first,
        "model.layers.0": first,
        "model.layers.1": second,
        "model.norm": second,
        "lm_head": second,
    }


class Served:
    """Loads correctly and keeps the tokenizer; `generate` is what a subclass adds."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        self.device = cell.torch_device
        return load_model(checkpoint, cell)

    def batch(self, prompts: Prompts) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` on the cpu, padded on the left."""
        return dict(self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt"))


def embedding_device(model: Any) -> torch.device:
    """Where the ids belong."""
    return model.get_input_embeddings().weight.device


def new_tokens(output: torch.Tensor, width: int) -> Prompts:
    """What `generate` appended to a batch of `width` columns."""
    return [row[width:] for row in output.tolist()]
