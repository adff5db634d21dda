"""Says what torchao, optimum-quanto and HQQ cannot do, each with its source."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.loading.experts import cannot_pack_experts
from pytest_llmdevice.matrix.axes import Machine, Rule, below
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.model_names import parts_of
from pytest_llmdevice.matrix.registry import current

EXPERTS: Final = "model.layers.0.mlp.experts"
"""What the families of the zoo call a module of experts."""


def _installed(library: str, extra: str) -> Rule:
    def reason(_: Cell, machine: Machine) -> str | None:
        if library in machine.versions:
            return None
        return f"{library} is not installed; pip install 'pytest-llmdevice[{extra}]'"

    return Rule(f"{extra}-installed", f"the extra '{extra}' of this package", reason)


def _no_offload(library: str, source: str) -> Rule:
    def reason(cell: Cell, _: Machine) -> str | None:
        strategy = current().get("strategy", cell.strategy)
        if strategy is None or not strategy.offload:
            return None
        return f"transformers offloads no weights that {library} has packed"

    return Rule(f"{library}-is-not-offloaded", source, reason)


def _dense_experts(why: str, source: str) -> Rule:
    name = f"{why.split(maxsplit=1)[0]}-packs-no-experts"

    def reason(cell: Cell, machine: Machine) -> str | None:
        registry = current()
        family = registry.get("family", parts_of(cell.model).base)
        if family is None or not family.moe or below(machine, "transformers", "5.0.0.dev0"):
            return None
        mix = registry.get("quantization", cell.quantization)
        if mix is not None and mix.modules:
            own = registry.get("quantization", mix.of_module(EXPERTS, usual=True))
            if all(rule.name != name for rule in own.rules):
                return None
        return cannot_pack_experts(why)

    return Rule(name, source, reason)


NO_LINEAR_EXPERTS: Final = "optimum-quanto packs linear layers only"
NO_STACKS: Final = "torchao makes groups in the rows of two dimensions"

GROUPS_IN_ROWS: Final = _dense_experts(
    NO_STACKS,
    "torchao.quantization.quant_api._intx_weight_only_transform (0.18): block_size = (1, group_size)",
)


def _maps_no_names(cell: Cell, machine: Machine) -> str | None:
    registry = current()
    strategy, entry = registry.get("strategy", cell.strategy), registry.get("quantization", cell.quantization)
    family = registry.get("family", parts_of(cell.model).base)
    # On the CPU there is nothing to choose from, and no sizes are looked at.
    if strategy is None or not strategy.automatic or cell.kind == "cpu":
        return None
    if below(machine, "transformers", "5.0.0.dev0"):
        return None
    if entry is None or entry.library != "torchao" or not (entry.modules or (family is not None and family.moe)):
        return None
    what = "modules with settings of their own" if entry.modules else "experts"
    return f"transformers 5 makes no device map for {what}, which torchao is asked for by name (FqnToConfig)"


TORCHAO_RULES: Final = (
    _installed("torchao", "torchao"),
    _no_offload("torchao", "transformers.quantizers.quantizer_torchao (5.23): no hook packs what it brings"),
    Rule(
        "torchao-maps-no-names",
        "transformers.quantizers.quantizer_torchao param_needs_quantization (5.23): `param_name.rsplit('.', 1)` of a "
        "name without a dot, which integrations.accelerate.compute_module_sizes gives it",
        _maps_no_names,
    ),
)
QUANTO_RULES: Final = (
    _installed("optimum-quanto", "quanto"),
    _no_offload("optimum-quanto", "transformers.quantizers.quantizer_quanto (5.23): one device"),
    _dense_experts(
        NO_LINEAR_EXPERTS,
        "transformers.integrations.quanto.replace_with_quanto_layers (5.23): isinstance(module, nn.Linear)",
    ),
)


def _hqq_comes_later(_: Cell, machine: Machine) -> str | None:
    if below(machine, "transformers", "5.0.0.dev0"):
        return None
    return "transformers 5 loads no HQQ: 'QuantizationMethod.HQQ is not available yet and will be supported soon'"


HQQ_RULES: Final = (
    _installed("hqq", "hqq"),
    Rule(
        "hqq-is-not-in-transformers-5",
        "transformers.quantizers.base.HfQuantizer.get_quantize_ops (5.23), which HQQ's does not define",
        _hqq_comes_later,
    ),
    _no_offload("hqq", "transformers.quantizers.quantizer_hqq: one device, or a map of cards"),
)
