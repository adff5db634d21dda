"""Defines the quantizations of torchao, optimum-quanto and HQQ, each of which is an optional extra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.loading.quantizer_rules import (
    GROUPS_IN_ROWS,
    HQQ_RULES,
    NO_LINEAR_EXPERTS,
    NO_STACKS,
    QUANTO_RULES,
    TORCHAO_RULES,
)
from pytest_llmdevice.loading.smoke_layers import tried
from pytest_llmdevice.matrix.axes import Problem, Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current

if TYPE_CHECKING:
    import torch

HQQ_GROUP: Final = 64
"""Numbers that share a scale in HQQ: its own default."""

GROUP: Final = 32
"""Numbers that share a scale in 4 bits of torchao: a divisor of the zoo's widths."""

EIGHT_BIT_ERROR: Final = 0.05
FOUR_BIT_ERROR: Final = 0.2
"""Largest allowed |result - exact| / |exact| of one layer. Seen on a CPU: int8 5e-3, float8 0.026, int4 0.066."""


def _configured_by(method: str, library: str) -> Callable[[Mapping[str, Any], Cell], Iterable[Problem]]:
    """What reads a configuration whose `quant_method` is `method`: it is for no cell of another library."""

    def configured(said: Mapping[str, Any], cell: Cell) -> Iterator[Problem]:
        own = current().of(Quantization)[cell.quantization]
        found = str(getattr(said.get("quant_method"), "value", said.get("quant_method")))
        if found == method and own.library != library:
            yield Problem("config.quantization_config", f"quantization {cell.quantization}", method)
        weights = said.get("weights")
        if found == method and own.library == library and weights != own.settings.get("weights", weights):
            yield Problem("config.quantization_config", f"weights in {own.settings['weights']}", str(weights))

    return configured


OF_TORCHAO: Final = _configured_by("torchao", "torchao")
OF_QUANTO: Final = _configured_by("quanto", "optimum-quanto")
OF_HQQ: Final = _configured_by("hqq", "hqq")


Pack = Callable[[Any, Any, str], None]
"""Packs the one layer of a model, given the device and the name of the dtype."""


def _layer(pack: Pack, stored: str, error: float) -> Callable[[Any, str], Any]:
    def smoke_test(device: torch.device, dtype: str) -> tuple[Any, Any, float]:
        return *tried(lambda model: pack(model, device, dtype), device, dtype, stored), error

    return smoke_test


def _torchao(config: Callable[[Any], Any]) -> Callable[[Cell], Any]:
    def make(_: Cell) -> Any:
        import transformers

        wrap: Any = transformers.TorchAoConfig
        return wrap(config(import_module("torchao.quantization")))

    return make


def _torchao_pack(config: Callable[[Any], Any]) -> Pack:
    def pack(model: Any, _: Any, __: str) -> None:
        library: Any = import_module("torchao.quantization")
        library.quantize_(model, config(library))

    return pack


def _of_torchao(
    name: str,
    description: str,
    config: Callable[[Any], Any],
    tensor: str,
    *,
    storage: str = "int8",
    smoke_error: float = EIGHT_BIT_ERROR,
    errors: tuple[float, float, float],
    no_experts: str = "",
) -> Quantization:
    packing_error, logits_error, batch_error = errors
    return Quantization(
        name,
        description,
        "torchao",
        "pytest-llmdevice[torchao]",
        _torchao(config),
        MappingProxyType({"quant_method": "torchao"}),
        layer_class="",
        parameter_class=tensor,
        storage_dtype=storage,
        smoke_test=_layer(_torchao_pack(config), storage, smoke_error),
        pack=_torchao_pack(config),
        packing_error=packing_error,
        logits_error=logits_error,
        batch_error=batch_error,
        rules=(*TORCHAO_RULES, GROUPS_IN_ROWS) if no_experts else TORCHAO_RULES,
        configured=OF_TORCHAO,
        subclasses=True,
        keeps_float32=False,
        no_experts=no_experts,
    )


def _int4(library: Any) -> Any:
    import torch

    return library.IntxWeightOnlyConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        granularity=library.PerGroup(GROUP),
    )


def _quanto(weights: str) -> Callable[[Cell], Any]:
    def make(_: Cell) -> Any:
        import transformers

        wrap: Any = transformers.QuantoConfig
        return wrap(weights=weights)

    return make


def _quanto_pack(weights: str) -> Pack:
    def pack(model: Any, _: Any, __: str) -> None:
        library: Any = import_module("optimum.quanto")
        library.quantize(model, weights=getattr(library, f"q{weights}"))
        library.freeze(model)

    return pack


def _of_quanto(
    weights: str, tensor: str, storage: str, smoke_error: float, *, packing_error: float, logits_error: float
) -> Quantization:
    return Quantization(
        f"quanto-{weights}",
        f"optimum-quanto's {weights} weights",
        "optimum-quanto",
        "pytest-llmdevice[quanto]",
        _quanto(weights),
        MappingProxyType({"quant_method": "quanto", "weights": weights}),
        layer_class="QLinear",
        parameter_class=tensor,
        storage_dtype=storage,
        smoke_test=_layer(_quanto_pack(weights), storage, smoke_error),
        pack=_quanto_pack(weights),
        packing_error=packing_error,
        logits_error=logits_error,
        rules=QUANTO_RULES,
        configured=OF_QUANTO,
        subclasses=True,
        no_experts=NO_LINEAR_EXPERTS,
        module="optimum.quanto",
        unsaved="optimum-quanto's models are not saved by transformers (QuantoHfQuantizer.is_serializable, 5.23)",
    )


def _hqq(bits: int) -> Callable[[Cell], Any]:
    def make(_: Cell) -> Any:
        import transformers

        wrap: Any = transformers.HqqConfig
        return wrap(nbits=bits, group_size=HQQ_GROUP)

    return make


def _hqq_pack(bits: int) -> Pack:
    def pack(model: Any, device: Any, dtype: str) -> None:
        import torch

        library: Any = import_module("hqq.core.quantize")
        config = library.BaseQuantizeConfig(nbits=bits, group_size=HQQ_GROUP)
        model[0] = library.HQQLinear(
            model[0], quant_config=config, compute_dtype=getattr(torch, dtype), device=str(device)
        )

    return pack


def _of_hqq(bits: int, smoke_error: float, *, packing_error: float, logits_error: float) -> Quantization:
    return Quantization(
        f"hqq-int{bits}",
        f"HQQ's int{bits} weights in groups of {HQQ_GROUP}",
        "hqq",
        "pytest-llmdevice[hqq]",
        _hqq(bits),
        MappingProxyType({"quant_method": "hqq"}),
        layer_class="HQQLinear",
        parameter_class="",
        storage_dtype="uint8",
        smoke_test=_layer(_hqq_pack(bits), "uint8", smoke_error),
        pack=_hqq_pack(bits),
        packing_error=packing_error,
        logits_error=logits_error,
        rules=HQQ_RULES,
        configured=OF_HQQ,
    )


# Measured over the zoo on a CPU (docs/quantizers.md). Weights: eight bits at most 0.0079, torchao's four bits 0.097 and
# quanto's 0.10, float8 0.026, which outliers do not enlarge. Logits: eight bits 0.047, dynamic ones 0.058, float8 0.17,
# four bits 0.42 and 0.48. Dynamic ones to themselves: 0.019; all others 2e-4. HQQ's are not measured: they load in no
# version of transformers that is tested.
QUANTIZERS: Final = (
    _of_torchao(
        "torchao-int8",
        "torchao's int8 weights",
        lambda library: library.Int8WeightOnlyConfig(),
        "Int8Tensor",
        errors=(0.04, 0.15, 0.0),
    ),
    _of_torchao(
        "torchao-int8-dynamic",
        "torchao's int8 weights and activations, whose scales are found on the way",
        lambda library: library.Int8DynamicActivationInt8WeightConfig(),
        "Int8Tensor",
        errors=(0.04, 0.15, 0.05),
    ),
    _of_torchao(
        "torchao-int4",
        "torchao's int4 weights in groups of 32, unpacked in int8, the layout that every device computes",
        _int4,
        "IntxUnpackedToInt8Tensor",
        smoke_error=FOUR_BIT_ERROR,
        errors=(0.18, 0.6, 0.0),
        no_experts=NO_STACKS,
    ),
    _of_torchao(
        "torchao-float8",
        "torchao's float8 (e4m3) weights",
        lambda library: library.Float8WeightOnlyConfig(),
        "Float8Tensor",
        storage="float8_e4m3fn",
        errors=(0.05, 0.3, 0.0),
    ),
    _of_quanto("int8", "WeightQBytesTensor", "int8", EIGHT_BIT_ERROR, packing_error=0.04, logits_error=0.15),
    _of_quanto("int4", "WeightQBitsTensor", "uint8", FOUR_BIT_ERROR, packing_error=0.22, logits_error=0.7),
    _of_hqq(8, EIGHT_BIT_ERROR, packing_error=0.04, logits_error=0.15),
    _of_hqq(4, FOUR_BIT_ERROR, packing_error=0.22, logits_error=0.8),
)
"""In the order in which a matrix lists them, behind those of bitsandbytes."""
