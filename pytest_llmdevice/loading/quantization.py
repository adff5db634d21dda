"""Defines the quantizations: how each is requested, what its packed weights look like, and what it cannot do."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.bitsandbytes_layers import EMBEDDINGS, configured, eight_bit_problems, four_bit_problems
from pytest_llmdevice.matrix.axes import Machine, Quantization, Rule, below, too_old
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.model.bitsandbytes_weights import from_4_bit, from_8_bit, is_4_bit, is_8_bit

if TYPE_CHECKING:
    import torch

SMOKE_TEST_WIDTH: Final = 64
"""Features in and out: the default block size of bitsandbytes, a multiple of what int8 kernels ask for."""

EIGHT_BIT_ERROR: Final = 0.1
FOUR_BIT_ERROR: Final = 0.25
"""Largest allowed |result - exact| / |exact| of one layer, norms over all elements.

Far above what rounding does (seen on a CPU: int8 5e-3, nf4 0.09, fp4 0.12), far below what a wrong kernel does
(about 1).
"""


def quantization_of(cell: Cell) -> Quantization:
    """What the registry holds of the quantization of `cell`.

    Raises:
        KeyError: there is no such quantization.
    """
    return current().of(Quantization)[cell.quantization]


def layer_classes() -> frozenset[str]:
    """The names of the module classes that hold packed weights."""
    return frozenset(entry.layer_class for entry in current().of(Quantization).values() if entry.layer_class)


def config(cell: Cell) -> Any:
    """The `quantization_config` for `from_pretrained`, or None for a dense cell. Imports transformers."""
    return quantization_of(cell).config(cell)


def _dense(_: Cell) -> None:
    return None


def _never(_: torch.device, __: str) -> Any:
    raise NotImplementedError("dense weights have no layer of their own")


def _bits_and_bytes(cell: Cell) -> Any:
    """The `BitsAndBytesConfig` of a cell.

    The 4-bit compute dtype is the cell's dtype: left out, it stays float32 whatever the model's dtype is.
    """
    import transformers

    settings = quantization_of(cell).settings
    compute = {"bnb_4bit_compute_dtype": cell.torch_dtype} if "load_in_4bit" in settings else {}
    # Untyped upstream.
    make: Any = transformers.BitsAndBytesConfig
    return make(**settings, **compute)


def _eight_bit_layer(device: torch.device, dtype: str) -> tuple[Any, Any, float]:
    layer = _layers().Linear8bitLt(SMOKE_TEST_WIDTH, SMOKE_TEST_WIDTH, bias=False, has_fp16_weights=False)
    return *_run(layer, device, dtype, "int8"), EIGHT_BIT_ERROR


def _four_bit_layer(quant_type: str, *, double: bool) -> Any:
    def smoke_test(device: torch.device, dtype: str) -> tuple[Any, Any, float]:
        import torch

        layer = _layers().Linear4bit(
            SMOKE_TEST_WIDTH,
            SMOKE_TEST_WIDTH,
            bias=False,
            compute_dtype=getattr(torch, dtype),
            compress_statistics=double,
            quant_type=quant_type,
        )
        return *_run(layer, device, dtype, "uint8"), FOUR_BIT_ERROR

    return smoke_test


def _layers() -> Any:
    # Untyped upstream.
    return import_module("bitsandbytes.nn")


def _run(layer: Any, device: torch.device, dtype_name: str, stored: str) -> tuple[Any, Any]:
    """What `layer` makes of random inputs on `device`, and what a dense layer makes of them in float64."""
    import torch

    dtype: torch.dtype = getattr(torch, dtype_name)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(SMOKE_TEST_WIDTH, SMOKE_TEST_WIDTH, generator=generator).to(dtype)
    inputs = torch.randn(8, SMOKE_TEST_WIDTH, generator=generator).to(dtype)
    layer.load_state_dict({"weight": weight})
    layer = layer.to(device)
    # Without this a layer that silently stayed dense would pass with a perfect result.
    kept = layer.get_parameter("weight")
    if kept.dtype != getattr(torch, stored):
        raise TypeError(f"the weight is {kept.dtype} after quantization, not torch.{stored}")
    with torch.no_grad():
        return layer(inputs.to(device)), inputs.double() @ weight.double().T


def _int8_is_not_moved(cell: Cell, machine: Machine) -> str | None:
    if cell.strategy != "to" or not below(machine, "transformers", "5.0.0.dev0"):
        return None
    return "transformers before 5 refuses `.to` on an 8-bit model ('`.to` is not supported for `8-bit` ... models')"


def _installed(_: Cell, machine: Machine) -> str | None:
    if "bitsandbytes" not in machine.versions:
        return "bitsandbytes is not installed; install pytest-llmdevice[bitsandbytes]"
    return None


def _transformers_5_needs_bitsandbytes(_: Cell, machine: Machine) -> str | None:
    if not below(machine, "transformers", "5.0.0.dev0") and below(machine, "bitsandbytes", "0.46.1"):
        return too_old(machine, "bitsandbytes", "0.46.1", "for quantization on any device")
    return None


def _beyond_cuda(cell: Cell, machine: Machine) -> str | None:
    if cell.kind not in ("cuda", "rocm") and below(machine, "bitsandbytes", "0.46.0"):
        return too_old(machine, "bitsandbytes", "0.46.0", f"for quantization on {cell.kind}")
    return None


def _on_mps(cell: Cell, machine: Machine) -> str | None:
    # On a real one its probe knows better.
    if cell.kind == "mps" and cell.simulated and below(machine, "bitsandbytes", "0.49.0"):
        return too_old(machine, "bitsandbytes", "0.49.0", "for quantization on mps")
    return None


def _offloaded_weights_stay_dense(cell: Cell, _: Machine) -> str | None:
    strategy = current().get("strategy", cell.strategy)
    if strategy is not None and strategy.offload:
        return (
            f"transformers offloads no {cell.quantization} weights: it refuses such a map ('Some modules are "
            "dispatched on the CPU or the disk'), and with llm_int8_enable_fp32_cpu_offload it leaves the "
            "offloaded modules dense"
        )
    return None


RULES: Final = (
    Rule("bitsandbytes-installed", "the extra 'bitsandbytes' of this package", _installed),
    Rule(
        "transformers-5-needs-bitsandbytes-0.46.1",
        "transformers.utils.import_utils.BITSANDBYTES_MIN_VERSION (5.23)",
        _transformers_5_needs_bitsandbytes,
    ),
    Rule(
        "bitsandbytes-beyond-cuda",
        "transformers.integrations.bitsandbytes.validate_bnb_backend_availability (4.57.6) asks for the "
        "feature 'multi_backend', absent in bitsandbytes 0.45.5, present in 0.46.0",
        _beyond_cuda,
    ),
    Rule(
        "bitsandbytes-on-mps",
        "the table of accelerators in bitsandbytes' README: int8 and 4-bit on mps planned in 0.48.0, slow in 0.49.0, "
        "supported in 0.50.0",
        _on_mps,
    ),
    Rule(
        "offloaded-weights-stay-dense",
        "transformers.quantizers.quantizer_bnb_8bit and _4bit: validate_environment and "
        "_process_model_before_weight_loading (4.57.6, 5.23)",
        _offloaded_weights_stay_dense,
    ),
)
"""What no quantization of bitsandbytes can do."""


def _four_bit(name: str, description: str, *, packing_error: float, logits_error: float) -> Quantization:
    # Both halves of the name are bitsandbytes' own words for it.
    quant_type, _, double = name.partition("-")
    return Quantization(
        name,
        description,
        "bitsandbytes",
        "pytest-llmdevice[bitsandbytes]",
        _bits_and_bytes,
        MappingProxyType(
            {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": quant_type,
                "bnb_4bit_use_double_quant": bool(double),
            }
        ),
        layer_class="Linear4bit",
        parameter_class="Params4bit",
        # Two numbers to a byte, so that its shape is not the layer's; `quant_storage` of Params4bit by default.
        storage_dtype="uint8",
        smoke_test=_four_bit_layer(quant_type, double=bool(double)),
        packing_error=packing_error,
        logits_error=logits_error,
        rules=RULES,
        dequantize=from_4_bit,
        packed=is_4_bit,
        problems=four_bit_problems,
        configured=configured,
        embeddings=EMBEDDINGS,
        layers=("Linear", "Conv1D"),
    )


# Measured over the zoo on a CPU. Logits: int8 at most 0.057, nf4 0.43, fp4 0.63. Weights: int8 at most 0.0073, nf4
# 0.094, fp4 0.12; the bounds are twice that and more, because the weights of trained models have outliers. Unrelated
# weights are off by 1.4, packed ones that were not scaled back by nearly 1.
QUANTIZATIONS: Final = (
    Quantization(
        "none",
        "dense weights in the cell's dtype",
        "",
        "",
        _dense,
        MappingProxyType({}),
        layer_class="",
        parameter_class="",
        storage_dtype="",
        smoke_test=_never,
        packing_error=0.0,
        logits_error=0.0,
    ),
    Quantization(
        "int8",
        "bitsandbytes' LLM.int8()",
        "bitsandbytes",
        "pytest-llmdevice[bitsandbytes]",
        _bits_and_bytes,
        MappingProxyType({"load_in_8bit": True}),
        layer_class="Linear8bitLt",
        parameter_class="Int8Params",
        storage_dtype="int8",
        smoke_test=_eight_bit_layer,
        packing_error=0.04,
        logits_error=0.15,
        # Outliers are looked for in the whole batch.
        batch_error=0.15,
        rules=(
            Rule(
                "int8-is-not-moved",
                "transformers.modeling_utils.PreTrainedModel.to (refused in 4.57.6, allowed in 5.0 with bitsandbytes "
                "0.48)",
                _int8_is_not_moved,
            ),
            *RULES,
        ),
        dequantize=from_8_bit,
        packed=is_8_bit,
        problems=eight_bit_problems,
        configured=configured,
        embeddings=EMBEDDINGS,
        layers=("Linear", "Conv1D"),
    ),
    _four_bit("nf4", "bitsandbytes' 4-bit NormalFloat", packing_error=0.18, logits_error=0.6),
    _four_bit("nf4-double", "the same with quantized scales", packing_error=0.18, logits_error=0.6),
    _four_bit("fp4", "bitsandbytes' 4-bit floating point", packing_error=0.22, logits_error=0.8),
)
"""In the order in which a matrix lists them."""
