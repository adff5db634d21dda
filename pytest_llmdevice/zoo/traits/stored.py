"""Traits of files: how weights are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

WHOLE: Final = "model.safetensors"
SHARDS: Final = 3


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in the files of a checkpoint, by their names there."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write `weights` to as many files as the checkpoint had."""
    from safetensors.torch import save_file

    sharded = len(list(folder.glob("*.safetensors"))) > 1
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        file.unlink()
    if not sharded:
        save_file(weights, folder / WHOLE, metadata={"format": "pt"})
        return
    placed = {
        name: f"model-{number % SHARDS + 1:05}-of-{SHARDS:05}.safetensors"
        for number, name in enumerate(sorted(weights))
    }
    for file_name in sorted(set(placed.values())):
        save_file(
            {name: weights[name] for name in weights if placed[name] == file_name},
            folder / file_name,
            metadata={"format": "pt"},
        )
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / f"{WHOLE}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _store_halves(folder: Path) -> None:
    import torch

    weights = read_weights(folder)
    write_weights(folder, {name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in weights.items()})


def _shard(folder: Path) -> None:
    if not (folder / f"{WHOLE}.index.json").is_file():
        weights = read_weights(folder)
        # A second file is what `write_weights` goes by.
        (folder / "model-00000.safetensors").touch()
        write_weights(folder, weights)


def _untied(config: PreTrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "it shares its embedding between encoder and decoder"
    tied = getattr(config.get_text_config(), "tie_word_embeddings", False)
    return None if tied else "its embeddings are not tied"


def _store_twice(folder: Path) -> None:
    """Write the output embedding beside the input embedding, under its own name and with the same values."""
    from transformers import AutoModelForCausalLM

    untyped: Any = AutoModelForCausalLM
    model = untyped.from_pretrained(folder, local_files_only=True, dtype="auto")
    head = model.get_output_embeddings().weight
    stored = read_weights(folder)
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head]
    write_weights(folder, {**stored, **{name: head.detach().clone() for name in names if name not in stored}})


TRAITS: Final = (
    Trait(
        "stored-otherwise",
        "weights stored in bfloat16 though the configuration says float32",
        "Converted and merged checkpoints keep the dtype of one and the configuration of the other.",
        "https://huggingface.co/docs/transformers/main_classes/model#transformers.PreTrainedModel.from_pretrained",
        rewrite=_store_halves,
    ),
    Trait(
        "sharded",
        f"weights in {SHARDS} files with an index",
        "Whatever is larger than some gigabytes is stored so.",
        "https://huggingface.co/docs/transformers/big_models",
        rewrite=_shard,
    ),
    Trait(
        "stored-twice",
        "embeddings that are tied in the configuration, and both stored",
        "Qwen1.5-0.5B was published so, and whoever saves sharded or offloaded weights writes both.",
        "https://github.com/huggingface/transformers/issues/30202",
        "models with tied embeddings",
        refusal=_untied,
        rewrite=_store_twice,
    ),
)
