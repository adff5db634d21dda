"""Leaving a simulation leaves no trace in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_llmdevice.simulation import driver
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.profiles import parse
from pytest_llmdevice.simulation.tags import Tags

PROFILES = ["cuda:2", "cuda-t4", "rocm:2", "xpu:2", "mps"]


def owners() -> list[Any]:
    cuda: Any = torch.cuda
    found = [torch, torch._C, torch.version, torch.cuda, torch.xpu, torch.mps, torch.backends.mps, torch.backends.cuda]
    found += [cuda.streams, cuda.graphs, cuda.memory, cuda.random, torch.xpu.streams, torch.accelerator]
    classes = [cuda.Stream, cuda.Event, cuda.ExternalStream, torch.xpu.Stream, torch.xpu.Event]
    classes += [cuda.graphs.CUDAGraph, cuda.graphs.graph]
    for name in ("graphs", "memory"):
        found += [getattr(module, name) for module in (torch.xpu, torch.accelerator) if hasattr(module, name)]
    return [*found, *classes]


def snapshot(found: list[Any]) -> list[dict[str, Any]]:
    return [dict(vars(owner)) for owner in found]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_attribute_is_as_it_was(profile: str) -> None:
    machine = Machine(parse(profile))
    patches = Patches()
    found = owners()
    # A module is loaded on its first use, which would count as a change.
    torch.cuda.is_available(), torch.xpu.is_available(), torch.backends.mps.is_available()
    before = snapshot(found)

    driver.install(machine, Tags(machine), patches)
    during = snapshot(found)
    patches.undo()

    after = snapshot(found)
    assert during != before
    for owner, was, now in zip(found, before, after, strict=True):
        assert was.keys() == now.keys(), owner
        assert [name for name in was if was[name] is not now[name]] == [], owner


@pytest.mark.parametrize("profile", PROFILES)
def test_the_machine_without_cards_is_back(profile: str) -> None:
    machine = Machine(parse(profile))
    patches = Patches()
    answers = real_answers()

    driver.install(machine, Tags(machine), patches)
    # Functions that remember what they found are asked while the cards are there.
    seen = real_answers()
    patches.undo()

    assert seen != answers
    assert real_answers() == answers


def real_answers() -> list[Any]:
    cuda: Any = torch.cuda
    return [
        torch.cuda.is_available(),
        torch.cuda.device_count(),
        torch.xpu.is_available(),
        torch.xpu.device_count(),
        torch.backends.mps.is_available(),
        torch.backends.mps.is_built(),
        torch.accelerator.current_accelerator(),
        torch.accelerator.device_count(),
        cuda.is_initialized(),
        torch.cuda.get_arch_list(),
        torch.version.cuda,
        torch.version.hip,
    ]


def test_only_the_simulated_kind_is_there(subtests: Any) -> None:
    for profile, expected in {
        "cuda:2": (True, False, False),
        "rocm": (True, False, False),
        "xpu": (False, True, False),
        "mps": (False, False, True),
    }.items():
        with subtests.test(profile):
            machine = Machine(parse(profile))
            patches = Patches()
            driver.install(machine, Tags(machine), patches)
            try:
                found = (torch.cuda.is_available(), torch.xpu.is_available(), torch.backends.mps.is_available())
            finally:
                patches.undo()
            assert found == expected


def test_a_failure_while_entering_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(parse("cuda"))
    patches = Patches()
    found = owners()
    before = snapshot(found)
    with monkeypatch.context() as patch:
        patch.setattr(driver.accelerator, "install", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            driver.install(machine, Tags(machine), patches)
        patches.undo()

    assert snapshot(found) == before
