"""Traits of files that hold packed weights: checkpoints that are quantized by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import CheckpointUnavailable, UnsupportedByLibrary, first_line
from pytest_llmdevice.zoo.traits.json_files import CONFIGURATION, change
from pytest_llmdevice.zoo.traits.stored import read_weights, write_weights
from pytest_llmdevice.zoo.traits.trait import Trait

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

BLOCK: Final = 32
"""Rows and columns with one scale in FP8, and numbers with one scale in a row of MXFP4; FP8 checkpoints have 128, which
is as much as a layer of a tiny model."""

LARGEST_E4M3: Final = 448.0
"""The largest number of float8_e4m3fn."""

E2M1: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The numbers of four bits that MXFP4 has, without their signs (OCP Microscaling Formats, version 1.0, table 5)."""

_DENSE: Final = ("norm", "router", ".gate.", "shared_expert_gate", "conv", "relative", "embed")
"""Parts of the names of weights that published FP8 checkpoints leave dense."""


def _pack_fp8(folder: Path) -> None:
    stored: dict[str, torch.Tensor] = {}
    for name, weight in read_weights(folder).items():
        if not _is_packable(name, weight):
            stored[name] = _half(weight)
            continue
        stored[name], stored[f"{name}_scale_inv"] = _in_blocks(weight)
    write_weights(folder, stored)
    _configure(
        folder,
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]},
    )


def _is_packable(name: str, weight: torch.Tensor) -> bool:
    # What lies outside of the layers is the embedding and the head.
    inside = any(part.isdigit() for part in name.split("."))
    return inside and weight.ndim == 2 and name.endswith(".weight") and not any(part in name for part in _DENSE)


def _in_blocks(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` in e4m3, of the same shape, and for each block what to multiply its numbers with."""
    import torch

    rows, columns = (-(-size // BLOCK) for size in weight.shape)
    padded = torch.zeros(rows * BLOCK, columns * BLOCK)
    padded[: weight.shape[0], : weight.shape[1]] = weight.float()
    scales = padded.view(rows, BLOCK, columns, BLOCK).abs().amax((1, 3)).clamp(min=1e-12) / LARGEST_E4M3
    spread = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    packed = (padded / spread)[: weight.shape[0], : weight.shape[1]]
    return packed.to(torch.float8_e4m3fn).contiguous(), scales


def _pack_mxfp4(folder: Path) -> None:
    stored: dict[str, torch.Tensor] = {}
    for name, weight in read_weights(folder).items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            # The files have them as a linear layer has: rows of outputs.
            stored[f"{name}_blocks"], stored[f"{name}_scales"] = _microscaled(weight.transpose(-1, -2))
        else:
            stored[name] = _half(weight)
    write_weights(folder, stored)
    dense = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    _configure(folder, {"quant_method": "mxfp4", "modules_to_not_convert": dense})


def _microscaled(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` in blocks of 32 numbers of four bits, two to a byte, and the exponent of each block, plus 127."""
    import torch

    blocks = weight.float().reshape(*weight.shape[:-1], -1, BLOCK)
    exponents = (blocks.abs().amax(-1).clamp(min=2.0**-100).log2().floor() - 2).clamp(-127, 127)
    scaled = blocks / exponents.exp2()[..., None]
    codes = (scaled.abs()[..., None] - torch.tensor(E2M1)).abs().argmin(-1) | (scaled < 0).long() << 3
    pairs = codes[..., 0::2] | codes[..., 1::2] << 4
    return pairs.to(torch.uint8), (exponents + 127).to(torch.uint8)


def _pack_w4a16(folder: Path) -> None:
    import torch

    if find_spec("compressed_tensors") is None:
        raise CheckpointUnavailable("compressed-tensors, which unpacks it, is missing: pip install compressed-tensors")
    stored: dict[str, torch.Tensor] = {}
    for name, weight in read_weights(folder).items():
        if not _is_packable(name, weight):
            stored[name] = _half(weight)
            continue
        layer = name.removesuffix("weight")
        stored[f"{layer}weight_packed"], stored[f"{layer}weight_scale"] = _in_groups(weight)
        stored[f"{layer}weight_shape"] = torch.tensor(weight.shape)
    write_weights(folder, stored)
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": BLOCK, "symmetric": True}
    _configure(
        folder,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "ignore": ["lm_head", "re:.*gate$", "re:.*router.*"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        },
    )


def _in_groups(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` in numbers of four bits, eight to an int32, and the scales of `BLOCK` numbers of a row each."""
    import torch

    groups = weight.float().view(len(weight), -1, BLOCK)
    scales = (groups.abs().amax(-1).clamp(min=1e-9) / 7.5).to(torch.bfloat16)
    codes = (groups / scales.float()[..., None]).round().clamp(-8, 7).long() + 8
    packed = (codes.view(len(weight), -1, 8) << 4 * torch.arange(8)).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32), scales


def _half(weight: torch.Tensor) -> torch.Tensor:
    import torch

    return weight.to(torch.bfloat16) if weight.is_floating_point() else weight


def _configure(folder: Path, quantization: Mapping[str, Any]) -> None:
    change(folder / CONFIGURATION, lambda said: said.update(quantization_config=dict(quantization), dtype="bfloat16"))


def _pack_with_bitsandbytes(options: Mapping[str, Any]) -> Callable[[Path], None]:
    def pack(folder: Path) -> None:
        import transformers

        if find_spec("bitsandbytes") is None:
            raise CheckpointUnavailable("bitsandbytes packs it, and is missing: install pytest-llmdevice[bitsandbytes]")
        kinds: Any = transformers
        sequences = _configuration(folder).is_encoder_decoder
        kind = kinds.AutoModelForSeq2SeqLM if sequences else kinds.AutoModelForCausalLM
        model = kind.from_pretrained(
            folder,
            dtype="bfloat16",
            device_map="cpu",
            local_files_only=True,
            quantization_config=kinds.BitsAndBytesConfig(**options),
        )
        _refuse_what_cannot_run(model)
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        model.save_pretrained(folder)

    return pack


def _refuse_what_cannot_run(model: Any) -> None:
    """Do nothing if the packed `model` reads a text.

    Raises:
        UnsupportedByLibrary: it cannot: its class gives packed layers what they do not take, or reads their weights.
    """
    import torch

    ids = torch.zeros(1, 2, dtype=torch.long)
    given = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        with torch.no_grad():
            model(input_ids=ids, **given)
    except Exception as error:  # a class may fail with anything
        raise UnsupportedByLibrary(
            f"{type(model).__name__} does not run with what bitsandbytes packs: {first_line(error)}"
        ) from error


def _configuration(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return config


def _no_linear_layers(config: PreTrainedConfig) -> str | None:
    # Their layers are transposed, and no published FP8 checkpoint has such.
    return "its layers are no linear ones" if config.model_type in {"gpt2", "openai-gpt", "ctrl"} else None


def _no_gpt_oss(config: PreTrainedConfig) -> str | None:
    return None if config.model_type == "gpt_oss" else "it is no gpt-oss, which alone stores experts so"


TRAITS: Final = (
    Trait(
        "w4a16",
        "linear weights stored in four bits with a scale for 32 numbers, as compressed-tensors packs them",
        "What LLM Compressor writes for vLLM, such as the w4a16 releases of RedHatAI.",
        "https://huggingface.co/RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16/blob/main/config.json",
        "models with linear layers",
        refusal=_no_linear_layers,
        rewrite=_pack_w4a16,
    ),
    Trait(
        "fp8",
        "linear weights stored in float8 (e4m3) with a scale for each block of 32 by 32",
        "DeepSeek-V3 and R1, and the FP8 releases of Qwen3 (with blocks of 128).",
        "https://huggingface.co/Qwen/Qwen3-8B-FP8/blob/main/config.json",
        "models with linear layers",
        refusal=_no_linear_layers,
        rewrite=_pack_fp8,
    ),
    Trait(
        "mxfp4",
        "experts stored in MXFP4, four bits with a shared exponent for 32 numbers",
        "gpt-oss-20b and gpt-oss-120b.",
        "https://huggingface.co/openai/gpt-oss-20b/blob/main/config.json",
        "gpt-oss",
        refusal=_no_gpt_oss,
        rewrite=_pack_mxfp4,
    ),
    Trait(
        "bnb-int8",
        "weights stored as bitsandbytes packs them in int8",
        "Models that were loaded in 8 bits and pushed to the hub.",
        "https://huggingface.co/docs/transformers/quantization/bitsandbytes",
        "what bitsandbytes packs",
        rewrite=_pack_with_bitsandbytes({"load_in_8bit": True}),
    ),
    Trait(
        "bnb-4bit",
        "weights stored as bitsandbytes packs them in nf4",
        "Unsloth's `-bnb-4bit` repositories.",
        "https://huggingface.co/unsloth/Llama-3.2-1B-Instruct-bnb-4bit/blob/main/config.json",
        "what bitsandbytes packs",
        rewrite=_pack_with_bitsandbytes(
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
        ),
    ),
)
