"""Builds a LoRA adapter for a checkpoint of the zoo, `llama+lora`, as trained: with B = 0 no check could see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import CheckpointError
from pytest_llmdevice.zoo.manifest import damage, write_manifest

if TYPE_CHECKING:
    import torch

SUFFIX: Final = "+lora"
"""Behind the name of a checkpoint's folder: that of an adapter for it."""

RANK: Final = 4
ALPHA: Final = 8

SHARE: Final = 0.2
"""||B A|| alpha / rank, of ||W||: far above what 16-bit dtypes round, and small enough for the model to be itself."""

_TUNED: Final = (
    "q_proj", "v_proj", "up_proj", "qkv_proj", "gate_up_proj", "query_key_value", "c_attn", "q", "v", "in_proj",
    "x_proj",
)  # fmt: skip
"""The last parts of the names of weights that get an adapter: attention and one of the feed-forward layers."""

_VERSION: Final = 1


def lora(base: Path) -> Path:
    """The folder of an adapter for the checkpoint in `base`, beside it; built unless it is there and intact.

    The folder has the adapter's configuration, which names `base`, its tensors, and the tokenizer.

    Raises:
        CheckpointError: the folder beside `base` cannot be written, or no layer of the model can have an adapter.
    """
    try:
        return _built(base)
    except OSError as error:
        raise CheckpointError(f"the adapter for {base} cannot be built: {error.strerror or error}") from error


def _built(base: Path) -> Path:
    from filelock import FileLock

    entry = base.with_name(base.name + SUFFIX)
    recipe = {"base": str(base), "rank": RANK, "alpha": ALPHA, "share": SHARE, "version": _VERSION}
    if _intact(entry, recipe):
        return entry
    with FileLock(entry.with_name(f"{entry.name}.lock")):
        if not _intact(entry, recipe):
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir(parents=True)
            _write(base, entry)
            write_manifest(entry, recipe)
    return entry


def _intact(entry: Path, recipe: dict[str, Any]) -> bool:
    if not entry.is_dir() or damage(entry) is not None:
        return False
    manifests = (json.loads(path.read_text("utf-8")) for path in entry.glob("*manifest.json"))
    return any(manifest.get("recipe") == recipe for manifest in manifests)


def _write(base: Path, entry: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {
        name: tensor
        for name, tensor in _weights(base).items()
        if tensor.ndim == 2 and name.rpartition(".weight")[0].rpartition(".")[2] in _TUNED
    }
    if not weights:
        raise CheckpointError(f"{base}: no layer of this model is called {', '.join(_TUNED)}")
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in sorted(weights.items()):
        rows, columns = weight.shape if not _transposed(base, name) else weight.T.shape
        a = torch.randn(RANK, columns, generator=generator) / columns**0.5
        b = torch.randn(rows, RANK, generator=generator)
        b *= SHARE * float(weight.norm()) / (float((b @ a).norm()) * ALPHA / RANK)
        path = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = a.contiguous(), b.contiguous()
    save_file(tensors, entry / "adapter_model.safetensors", metadata={"format": "pt"})
    described = json.loads((base / "config.json").read_text("utf-8"))
    config = {
        "base_model_name_or_path": str(base),
        "bias": "none",
        "fan_in_fan_out": any(_transposed(base, name) for name in weights),
        "inference_mode": True,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": sorted({name.removesuffix(".weight").rpartition(".")[2] for name in weights}),
        "task_type": "SEQ_2_SEQ_LM" if described.get("is_encoder_decoder") else "CAUSAL_LM",
    }
    (entry / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True), "utf-8")
    for file in base.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(file, entry / file.name)


def _weights(base: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for path in sorted(base.glob("*.safetensors")):
        found |= load_file(path)
    return found


def _transposed(base: Path, name: str) -> bool:
    """Whether the weight `name` is that of a `Conv1D` of transformers, which is stored transposed (GPT-2)."""
    kind = json.loads((base / "config.json").read_text("utf-8")).get("model_type")
    return kind == "gpt2" and name.rpartition(".weight")[0].rpartition(".")[2].startswith("c_")
