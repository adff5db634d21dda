"""Whether a loaded model computes with the numbers of the checkpoint's configuration."""

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
"""Names of settings that enter the arithmetic, and no shape: a wrong one loads without a word. Dropout, defaults of
generation, special tokens and the like are not among them."""

_NESTED: Final = ("rope_parameters", "rope_scaling")

_LENGTHS: Final = ("max_position_embeddings", "n_positions", "original_max_position_embeddings")

_EXACT: Final = frozenset({"is_causal", "layer_idx", "num_experts_per_tok", "num_key_value_groups", "top_k"})
"""Attributes of modules that are no fractions, and that a forward pass reads."""

_NO_MATTER: Final = re.compile(r"drop|jitter|noise|momentum|loss|coef|initializer|^p$")
"""What modules keep for training only."""


def overridden(model: nn.Module, bones: nn.Module) -> Iterator[Finding]:
    """Settings of `model` that are not those of `bones`, which was made from the checkpoint's configuration.

    The configuration first; where it is right, the fractions that the modules keep for themselves.
    """
    own, stored = configuration_of(model), configuration_of(bones)
    if type(own) is not type(stored):
        # A class of its own with a configuration of its own: other names, and nothing to compare.
        return
    found = list(_settings(own, stored))
    yield from found
    if not found:
        yield from _attributes(model, bones)


def _settings(own: Any, stored: Any) -> Iterator[Finding]:
    ours, theirs = _flat(own), _flat(stored)
    for name, wanted in theirs.items():
        if name in ours and not _same(ours[name], wanted):
            yield Finding(f"config.{name}", _short(wanted), _short(ours[name]), OVERRIDDEN)
    for name in _LENGTHS:
        wanted, found = getattr(stored, name, None), getattr(own, name, None)
        # More positions than the checkpoint has are a wish; fewer cut texts off, or begin to scale earlier.
        if isinstance(wanted, int) and isinstance(found, int) and found < wanted:
            yield Finding(f"config.{name}", str(wanted), str(found), OVERRIDDEN)


def _flat(config: Any) -> dict[str, Any]:
    values = vars(config)
    found = {name: value for name, value in values.items() if name not in _NESTED and _COMPUTED.fullmatch(name)}
    for name in _NESTED:
        inner = values.get(name)
        if isinstance(inner, Mapping):
            found |= {f"{name}.{key}": value for key, value in inner.items() if not isinstance(value, Mapping)}
    return found


def _attributes(model: nn.Module, bones: nn.Module) -> Iterator[Finding]:
    names, modules = TensorNames(model, bones), dict(bones.named_modules())
    for name, architecture in names.modules.items():
        if architecture is None or architecture not in modules:
            continue
        module, other = model.get_submodule(name), modules[architecture]
        if type(module) is not type(other):
            continue
        for key, wanted in vars(other).items():
            found = vars(module).get(key)
            if not _read(key, wanted) or not _read(key, found) or _same(found, wanted):
                continue
            hint = NUMBERED if key == "layer_idx" else OVERRIDDEN
            yield Finding(f"{name}.{key}" if name else key, _short(wanted), _short(found), hint)


def _read(key: str, value: object) -> bool:
    fraction = isinstance(value, float) and not _NO_MATTER.search(key)
    return fraction or (key in _EXACT and isinstance(value, (bool, int)))


def _same(found: Any, wanted: Any) -> bool:
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (found, wanted))
    if numbers:
        return isclose(found, wanted, rel_tol=1e-6)
    if isinstance(found, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return list(found) == list(wanted)
    return bool(found == wanted)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
