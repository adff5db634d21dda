"""Compares the tensors of adapters with their file, and weights that an adapter was merged into with what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.values import NOT_APPLIED
from pytest_llmdevice.loading.adapters import adapter_tensors, tuner_layers
from pytest_llmdevice.model.names import parameters_of

if TYPE_CHECKING:
    import torch
    from torch import nn

ROUNDINGS = 4
"""A merge computes the change, and adds it, in the dtype of the weights: so many roundings, each of half an `eps`."""


def is_merged(value: torch.Tensor, expected: torch.Tensor, change: torch.Tensor) -> bool:
    """Whether `value` is `expected` up to what a merge of `change` in the dtype of `value` rounds."""
    import torch

    eps = torch.finfo(value.dtype).eps
    allowed = ROUNDINGS * eps * change.abs().max() + 2 * eps * expected.abs()
    return bool(((value.float() - expected.float()).abs() <= allowed).all())


def scale_of_change(value: torch.Tensor, expected: torch.Tensor, base: torch.Tensor) -> float | None:
    """By what `expected - base` was multiplied before it was added to `base`; None where `value` is no such sum."""
    wanted, found = expected.double() - base.double(), value.double() - base.double()
    times = float((found * wanted).sum() / wanted.square().sum())
    change = wanted * times
    return times if is_merged(value, base.float() + change.float(), change.float()) else None


def adapter_findings(model: nn.Module, checkpoint: str) -> tuple[list[Finding], int]:
    """What is wrong with the tensors of the live adapters of `model`, which `checkpoint` has, and how many there are.

    They are compared up to one rounding of the dtype that they are in. Which adapters are active is compared too: one
    that is loaded and switched off does nothing.
    """
    import torch

    stored = adapter_tensors(checkpoint)
    there = parameters_of(model)
    adapters = {name for layer in tuner_layers(model) for name in getattr(layer, "active_adapters", ())}
    findings, compared = [], 0
    for name, wanted in stored.items():
        path, _, last = name.rpartition(".")
        fitting = {f"{path}.{adapter}.{last}" for adapter in adapters} | {name}
        found = next((own for own in there if any(own == each or own.endswith(f".{each}") for each in fitting)), None)
        if found is None:
            findings.append(Finding(name, "a tensor of the adapter, active", "nothing of that name", NOT_APPLIED))
            continue
        value = there[found].detach().cpu()
        compared += 1
        if value.shape != wanted.shape:
            findings.append(Finding(found, f"shape {tuple(wanted.shape)}", f"shape {tuple(value.shape)}", NOT_APPLIED))
        elif not torch.equal(value, wanted.to(value.dtype)):
            off = float((value.float() - wanted.float()).abs().max())
            findings.append(Finding(found, "the value in the adapter's file", f"another, {off:.3g} away", NOT_APPLIED))
    if any(getattr(layer, "disable_adapters", False) for layer in tuner_layers(model)):
        findings.append(Finding("the adapter", "switched on", "switched off", NOT_APPLIED))
    return findings, compared
