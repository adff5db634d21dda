"""Checks that a loaded model computes with the settings of the checkpoint's configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isclose
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.loads import NUMBERED, OVERRIDDEN
from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.model.wrappers import configuration_of

if TYPE_CHECKING:
    from torch import nn

_COMPUTED: Final = re.compile(
    r"(.*_eps|.*_epsilon|activation_function|hidden_act|hidden_activation|.*_act_fn|.*softcapping|.*_scaling|"
    r".*_scaling_factor|scale_.*|.*_multiplier|embedding_scale|rope_\w+|partial_rotary_factor|.*_theta|rope_type|"
    r"sliding_window|window_size|layer_types|num_experts_per_tok|norm_topk_prob|topk_\w+|n_group|alibi|"
    r"query_pre_attn_scalar|parallel_attn|use_parallel_residual|do_layer_norm_before|time_step_\w+)"
)
"""Names of settings that change the arithmetic but no shape, so that wrong ones raise no error. Dropout, generation
defaults and special tokens are left out."""

_NESTED: Final = ("rope_parameters", "rope_scaling")

_LENGTHS: Final = ("max_position_embeddings", "n_positions", "original_max_position_embeddings")

_EXACT: Final = frozenset({"is_causal", "layer_idx", "num_experts_per_tok", "num_key_value_groups", "top_k"})
"""Integer and boolean attributes of modules that a forward pass reads."""

_TRAINING_ONLY: Final = re.compile(r"drop|jitter|noise|momentum|loss|coef|initializer|^p$")
"""Attributes of modules that matter for training only."""


def overridden_settings(model: nn.Module, plain: nn.Module) -> Iterator[Finding]:
    """Find settings of `model` that differ from those of `plain`, which is built from the checkpoint's configuration.

    If the configurations agree, the numbers that modules keep as attributes are compared.
    """
    own, stored = configuration_of(model), configuration_of(plain)
    if type(own) is not type(stored):
        # A configuration class of the target's own has other names, which cannot be compared.
        return
    findings = list(_settings(own, stored))
    yield from findings
    if not findings:
        yield from _attributes(model, plain)


def _settings(own: Any, stored: Any) -> Iterator[Finding]:
    own_settings, stored_settings = _flat(own), _flat(stored)
    for name, wanted in stored_settings.items():
        if name in own_settings and not _same(own_settings[name], wanted):
            yield Finding(f"config.{name}", _short(wanted), _short(own_settings[name]), OVERRIDDEN)
    for name in _LENGTHS:
        wanted, actual = getattr(stored, name, None), getattr(own, name, None)
        # More positions than in the checkpoint are allowed; fewer cut texts off, or scale positions earlier.
        if isinstance(wanted, int) and isinstance(actual, int) and actual < wanted:
            yield Finding(f"config.{name}", str(wanted), str(actual), OVERRIDDEN)


def _flat(config: Any) -> dict[str, Any]:
    values = vars(config)
    settings = {name: value for name, value in values.items() if name not in _NESTED and _COMPUTED.fullmatch(name)}
    for name in _NESTED:
        inner = values.get(name)
        if isinstance(inner, Mapping):
            settings |= {f"{name}.{key}": value for key, value in inner.items() if not isinstance(value, Mapping)}
    return settings


def _attributes(model: nn.Module, plain: nn.Module) -> Iterator[Finding]:
    names, modules = TensorNames(model, plain), dict(plain.named_modules())
    for name, architecture in names.modules.items():
        if architecture is None or architecture not in modules:
            continue
        module, other = model.get_submodule(name), modules[architecture]
        if type(module) is not type(other):
            continue
        for key, wanted in vars(other).items():
            actual = vars(module).get(key)
            if not _is_read(key, wanted) or not _is_read(key, actual) or _same(actual, wanted):
                continue
            hint = NUMBERED if key == "layer_idx" else OVERRIDDEN
            yield Finding(f"{name}.{key}" if name else key, _short(wanted), _short(actual), hint)


def _is_read(key: str, value: object) -> bool:
    fraction = isinstance(value, float) and not _TRAINING_ONLY.search(key)
    return fraction or (key in _EXACT and isinstance(value, (bool, int)))


def _same(actual: Any, wanted: Any) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (actual, wanted))
    if numbers:
        return isclose(actual, wanted, rel_tol=1e-6)
    if isinstance(actual, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return list(actual) == list(wanted)
    return bool(actual == wanted)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
