"""`torch.random` on simulated cards: what it forks and seeds, and the module that it finds for a type of card.

On a build of PyTorch for a type of card, `fork_rng` saves the generators of that type's module, whatever names the
devices have; without any card that module is `torch.cuda`, which refuses.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from pytest_llmdevice import simulate

MACHINES = ("cuda:2", "rocm:2", "xpu:2", "mps")


def _states(machine: Any) -> list[bytes]:
    generators = (torch.default_generator, *machine.machine.generators)
    return [bytes(generator.get_state().tolist()) for generator in generators]


def _draw(machine: Any) -> None:
    torch.rand(3)
    for device in machine.machine.devices:
        torch.rand(3, device=device)


@pytest.mark.parametrize("spec", MACHINES)
def test_forked_generators_are_put_back(spec: str) -> None:
    with simulate(spec) as machine:
        kind = machine.machine.device_type
        devices = machine.machine.devices
        forms: list[dict[str, Any]] = [
            {"devices": devices},
            {"devices": [str(device) for device in devices]},
            {"devices": range(len(devices))},
            {"devices": (device for device in devices)},
            {"devices": devices, "device_type": kind},
            {"devices": [kind], "device_type": kind} if len(devices) == 1 else {"devices": devices},
        ]
        for form in forms:
            before = _states(machine)
            with torch.random.fork_rng(**form):
                _draw(machine)
                assert all(now != then for now, then in zip(_states(machine), before, strict=True))
            assert _states(machine) == before


@pytest.mark.parametrize("spec", ["cuda:2", "xpu:2"])
def test_only_the_named_cards_are_forked(spec: str) -> None:
    with simulate(spec) as machine:
        before = _states(machine)
        with torch.random.fork_rng(devices=[machine.machine.devices[1]]):
            _draw(machine)
        after = _states(machine)
        assert [now == then for now, then in zip(after, before, strict=True)] == [True, False, True]


@pytest.mark.parametrize("spec", MACHINES)
def test_types_of_cards_that_are_not_there_are_refused_as_without_any(spec: str) -> None:
    def fork(kind: str) -> str:
        try:
            with torch.random.fork_rng(devices=[0], device_type=kind):
                return "forked"
        except (AssertionError, AttributeError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"

    kinds = ("cuda", "xpu", "mps", "meta", "cpu")
    without = {kind: fork(kind) for kind in kinds}
    with simulate(spec) as machine:
        here = machine.machine.device_type
        assert {kind: fork(kind) for kind in kinds} == without | {here: "forked"}
        assert torch.get_device_module() is getattr(torch, here)
        assert torch.get_device_module(machine.machine.devices[-1]) is getattr(torch, here)
    assert {kind: fork(kind) for kind in kinds} == without
    assert torch.get_device_module() is torch.cpu


@pytest.mark.parametrize("spec", MACHINES)
def test_seeds_reach_every_card(spec: str) -> None:
    with torch.random.fork_rng(devices=[]), simulate(spec) as machine:
        generators = machine.machine.generators
        for seed in (torch.random.manual_seed, torch.manual_seed):
            seed(number := random.Random(0).randrange(2**40))
            assert {generator.initial_seed() for generator in (torch.default_generator, *generators)} == {number}
        number = torch.random.seed()
        assert {generator.initial_seed() for generator in (torch.default_generator, *generators)} == {number}
        assert torch.random.initial_seed() == number
        module = torch.get_device_module()
        module.manual_seed(5)
        assert generators[0].initial_seed() == 5
        assert torch.equal(module.get_rng_state(), generators[0].get_state())
        for device in machine.machine.devices:
            generator = torch.Generator(device)
            assert generator.device == device
            assert torch.rand(2, device=device, generator=generator).device == device
