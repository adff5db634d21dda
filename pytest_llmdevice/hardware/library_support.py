"""What installed libraries cannot do, whatever the hardware: a table of small rules, each with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.hardware.inventory import Inventory
from pytest_llmdevice.matrix.cell import Cell

HALF_DTYPES: Final = frozenset({"bfloat16", "float16"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that cannot be.

    Attributes:
        name: how reports and tests call it.
        source: the code or documentation that says so, with the versions it was read in.
        reason: why a cell cannot run with an inventory's versions, or None when the rule is not about it.
    """

    name: str
    source: str
    reason: Callable[[Cell, Inventory], str | None]


def unsupported(cell: Cell, inventory: Inventory) -> str | None:
    """The first rule's reason why no installed library can run `cell`, or None."""
    return next((reason for rule in RULES if (reason := rule.reason(cell, inventory))), None)


def _split_needs_cards(cell: Cell, _: Inventory) -> str | None:
    if cell.strategy == "split" and cell.kind in ("cpu", "mps"):
        return f"strategy split needs two devices of a kind, and there is never more than one {cell.kind}"
    return None


def _cpu_offload_needs_a_card(cell: Cell, _: Inventory) -> str | None:
    if cell.strategy == "cpu-offload" and cell.kind in ("cpu", "mps"):
        return (
            f"strategy cpu-offload offloads nothing on {cell.kind}: accelerate leaves modules mapped to the "
            "CPU where they are when the main device is cpu or mps"
        )
    return None


def _shared_memory_is_dense(cell: Cell, _: Inventory) -> str | None:
    if cell.strategy == "shared-memory" and cell.quantization != "none":
        return f"strategy shared-memory writes dense tensors, not {cell.quantization} weights"
    return None


def _offloaded_weights_stay_dense(cell: Cell, _: Inventory) -> str | None:
    if cell.quantization != "none" and cell.strategy in ("cpu-offload", "disk-offload"):
        return (
            f"transformers offloads no {cell.quantization} weights: it refuses such a map ('Some modules are "
            "dispatched on the CPU or the disk'), and with llm_int8_enable_fp32_cpu_offload it leaves the "
            "offloaded modules dense"
        )
    return None


def _mamba_reads_its_weight(cell: Cell, inventory: Inventory) -> str | None:
    if cell.model != "mamba" or cell.quantization == "none" or _below(inventory, "transformers", "5.15.0.dev0"):
        return None
    return (
        "transformers' Mamba multiplies with dt_proj.weight itself (5.15 and later), which is packed in "
        f"{cell.quantization}; it needs a load that leaves dt_proj dense"
    )


def _deepseek_gives_int8_four_dimensions(cell: Cell, inventory: Inventory) -> str | None:
    # The CUDA backend has kernels of its own; a simulated card is computed by the CPU's.
    own_kernels = cell.kind in ("cuda", "rocm") and not cell.simulated
    if cell.model != "deepseek-v3" or cell.quantization != "int8" or own_kernels:
        return None
    if _below(inventory, "transformers", "5.15.0.dev0"):
        return None
    return (
        "transformers' DeepSeek-V3 gives kv_b_proj an input of four dimensions (5.15 and later), and "
        "bitsandbytes' int8 kernel for this device takes at most three"
    )


def _int8_is_not_moved(cell: Cell, inventory: Inventory) -> str | None:
    if cell.quantization != "int8" or cell.strategy != "to" or not _below(inventory, "transformers", "5.0.0.dev0"):
        return None
    return "transformers before 5 refuses `.to` on an 8-bit model ('`.to` is not supported for `8-bit` ... models')"


def _automatic_maps_choose(cell: Cell, _: Inventory) -> str | None:
    if cell.strategy in ("auto", "balanced", "sequential") and cell.index > 0:
        return f"strategy {cell.strategy} chooses among all cards itself; ask for it on {cell.kind}:0"
    return None


def _bitsandbytes_installed(cell: Cell, inventory: Inventory) -> str | None:
    if cell.quantization != "none" and "bitsandbytes" not in inventory.versions:
        return "bitsandbytes is not installed; install pytest-llmdevice[bitsandbytes]"
    return None


def _transformers_5_needs_bitsandbytes(cell: Cell, inventory: Inventory) -> str | None:
    if cell.quantization == "none" or _below(inventory, "transformers", "5.0.0.dev0"):
        return None
    if _below(inventory, "bitsandbytes", "0.46.1"):
        return _too_old(inventory, "bitsandbytes", "0.46.1", "for quantization on any device")
    return None


def _bitsandbytes_beyond_cuda(cell: Cell, inventory: Inventory) -> str | None:
    if cell.quantization == "none" or cell.kind in ("cuda", "rocm"):
        return None
    if _below(inventory, "bitsandbytes", "0.46.0"):
        return _too_old(inventory, "bitsandbytes", "0.46.0", f"for quantization on {cell.kind}")
    return None


def _bitsandbytes_on_mps(cell: Cell, inventory: Inventory) -> str | None:
    # On a real one its probe knows better.
    if cell.quantization == "none" or cell.kind != "mps" or not cell.simulated:
        return None
    if _below(inventory, "bitsandbytes", "0.49.0"):
        return _too_old(inventory, "bitsandbytes", "0.49.0", "for quantization on mps")
    return None


def _flash_attention(cell: Cell, inventory: Inventory) -> str | None:
    if cell.attention != "flash_attention_2":
        return None
    if cell.simulated or cell.kind not in ("cuda", "rocm"):
        device = "a simulated device" if cell.simulated else cell.kind
        return f"flash_attention_2 has kernels for cuda and rocm only, not for {device}"
    if cell.dtype not in HALF_DTYPES:
        return f"flash_attention_2 computes in bfloat16 and float16 only, not in {cell.dtype}"
    if "flash_attn" not in inventory.versions:
        return "flash_attention_2 needs the package flash_attn, which is not installed"
    card = inventory.find(cell.device, "cuda")
    if card and card.capability and version_key(card.capability) < (8, 0):
        return f"flash_attention_2 needs compute capability 8.0, {cell.device} has {card.capability}"
    return None


RULES: Final = (
    Rule("split-needs-cards", "the strategy's definition", _split_needs_cards),
    Rule(
        "cpu-offload-needs-a-card",
        "accelerate.big_modeling.dispatch_model: offloaded_devices leaves out 'cpu' on cpu and mps (1.15)",
        _cpu_offload_needs_a_card,
    ),
    Rule("shared-memory-is-dense", "the strategy's definition", _shared_memory_is_dense),
    Rule("automatic-maps-choose", "the strategy's definition", _automatic_maps_choose),
    Rule(
        "int8-is-not-moved",
        "transformers.modeling_utils.PreTrainedModel.to (refused in 4.57.6, allowed in 5.0 with bitsandbytes 0.48)",
        _int8_is_not_moved,
    ),
    Rule("bitsandbytes-installed", "the extra 'bitsandbytes' of this package", _bitsandbytes_installed),
    Rule(
        "transformers-5-needs-bitsandbytes-0.46.1",
        "transformers.utils.import_utils.BITSANDBYTES_MIN_VERSION (5.23)",
        _transformers_5_needs_bitsandbytes,
    ),
    Rule(
        "bitsandbytes-beyond-cuda",
        "transformers.integrations.bitsandbytes.validate_bnb_backend_availability (4.57.6) asks for the "
        "feature 'multi_backend', absent in bitsandbytes 0.45.5, present in 0.46.0",
        _bitsandbytes_beyond_cuda,
    ),
    Rule(
        "bitsandbytes-on-mps",
        "the table of accelerators in bitsandbytes' README: int8 and 4-bit on mps planned in 0.48.0, slow in 0.49.0, "
        "supported in 0.50.0",
        _bitsandbytes_on_mps,
    ),
    Rule(
        "offloaded-weights-stay-dense",
        "transformers.quantizers.quantizer_bnb_8bit and _4bit: validate_environment and "
        "_process_model_before_weight_loading (4.57.6, 5.23)",
        _offloaded_weights_stay_dense,
    ),
    Rule(
        "mamba-reads-its-weight",
        "transformers.models.mamba MambaMixer: `self.dt_proj.weight @ time_step` on every path since 5.15.0, until "
        "5.14.0 only on the one with mamba_ssm's kernels",
        _mamba_reads_its_weight,
    ),
    Rule(
        "deepseek-gives-int8-four-dimensions",
        "transformers.models.deepseek_v3 expand_kv (absent in 5.14.0, present in 5.15.0); "
        "bitsandbytes.backends.default.ops int8_vectorwise_quant reduces over dim=1 (0.50.2)",
        _deepseek_gives_int8_four_dimensions,
    ),
    Rule(
        "flash-attention",
        "transformers.modeling_utils._flash_attn_import_error (5.23); flash_attn's README: fp16 and bf16, "
        "Ampere or newer, ROCm",
        _flash_attention,
    ),
)
"""In the order in which they are asked; the first reason is the one reported."""


def version_key(text: str) -> tuple[int, ...]:
    """`"9.0"` -> `(9, 0)`.

    Raises:
        ValueError: the text is not numbers joined by dots.
    """
    return tuple(int(part) for part in text.split("."))


def _below(inventory: Inventory, package: str, version: str) -> bool:
    """Whether `package` is installed and older than `version`."""
    from packaging.version import Version

    found = inventory.versions.get(package)
    return found is not None and Version(found) < Version(version)


def _too_old(inventory: Inventory, package: str, version: str, purpose: str) -> str:
    return f"{package} {inventory.versions[package]} is too old {purpose}; {version} or later is needed"
