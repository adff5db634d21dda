"""Entering and leaving: what is there inside, and that nothing of it stays."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation import Simulation, installation, parse, simulate

DEVICES = {"cuda:2": "cuda:1", "rocm:2": "cuda:1", "xpu:2": "xpu:1", "mps": "mps:0"}
# Much of it has no types.
TORCH: Any = torch


def owners() -> list[Any]:
    found = [torch, torch._C, torch.cuda, torch.cuda.memory, torch.xpu, torch.mps, torch.accelerator, torch.version]
    found += [torch.autograd, torch.autograd.graph, torch._tensor_str, torch._utils, torch.storage, torch.compiler]
    found += [torch.backends.cuda, torch.backends.mps, torch.nn.functional, torch.serialization, torch.utils.dlpack]
    classes = [torch.Tensor, torch._C.TensorBase, torch.UntypedStorage, torch.TypedStorage, torch._C.StorageBase]
    classes += [torch.nn.Module, torch.nn.Parameter, torch._C.Generator, torch.jit.ScriptFunction]
    return [*found, *classes, TORCH.jit.ScriptModule, threading.Thread, ThreadPoolExecutor]


def state() -> list[Any]:
    from torch._dynamo import eval_frame

    attributes = [(owner, dict(vars(owner))) for owner in owners()]
    stacks = [list(TORCH.overrides._get_current_function_mode_stack()), list(_get_current_dispatch_mode_stack())]
    rest = [vars(TORCH._dynamo.eval_frame._stance).copy(), dict(os.environ), torch.get_default_device()]
    return [attributes, stacks, rest, eval_frame._stance]


def differences(before: list[Any], after: list[Any]) -> list[str]:
    found = [
        f"{getattr(owner, '__name__', owner)}.{name}"
        for (owner, was), (_, now) in zip(before[0], after[0], strict=True)
        for name in was.keys() | now.keys()
        if was.get(name, state) is not now.get(name, state)
    ]
    return found + [f"{was} is {now}" for was, now in zip(before[1:], after[1:], strict=True) if was != now]


@pytest.fixture(autouse=True)
def _loaded() -> Iterator[None]:
    """What is imported on its first use would count as a change."""
    with simulate("cuda"):
        torch.compile(torch.neg)(torch.ones(1, device="cuda"))
    assert Simulation._active is None
    yield
    assert Simulation._active is None


def work(device: str) -> torch.Tensor:
    layer = torch.nn.Linear(2, 2).to(device)
    layer(torch.ones(1, 2, device=device)).sum().backward()
    torch.zeros(2).to(device).cpu().numpy()
    assert layer.weight.grad is not None
    return layer.weight.grad


@pytest.mark.parametrize("spec", DEVICES)
def test_leaving_leaves_nothing_behind(spec: str) -> None:
    before = state()

    with simulate(spec):
        assert str(work(DEVICES[spec]).device) == DEVICES[spec]
        inside = state()

    assert len(differences(before, inside)) > 30
    assert differences(before, state()) == []


def test_nor_does_an_exception_inside() -> None:
    before = state()

    with pytest.raises(KeyError, match="mine"), simulate("cuda:2"), torch.device("cuda:1"), torch.no_grad():
        raise KeyError("mine")

    assert differences(before, state()) == []
    assert torch.ones(1).device.type == "cpu"


@pytest.mark.parametrize("step", ["driver", "storages", "threads", "libraries", "representation", "last"])
def test_nor_does_a_failure_while_entering(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError(step)

    steps: Any = installation
    simulation = simulate("cuda:2")
    before = state()
    with monkeypatch.context() as patch:
        if step == "last":
            patch.setattr(type(simulation._mode), "__enter__", fail)
        else:
            patch.setattr(getattr(steps, step), "install", fail)
        with pytest.raises(ZeroDivisionError, match=step):
            simulation.__enter__()

    assert differences(before, state()) == []
    with simulation:
        assert torch.cuda.device_count() == 2


def test_a_default_device_that_is_gone_is_forgotten() -> None:
    try:
        with simulate("cuda:2"):
            torch.set_default_device("cuda:1")
            assert torch.ones(1).device == torch.device("cuda:1")

        assert torch.get_default_device() == torch.device("cpu")
        assert torch.ones(1).device.type == "cpu"
        assert list(TORCH.overrides._get_current_function_mode_stack()) == []
    finally:
        torch.set_default_device(None)


def test_a_default_device_that_was_there_before_is_there_again() -> None:
    torch.set_default_device("meta")
    try:
        with simulate("cuda:2"):
            assert torch.ones(1).device.type == "meta"
            assert torch.ones(1, device="cuda:1").device.type == "cuda"
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)


def test_the_modes_of_others_stay_where_they_are() -> None:
    class Counting(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Counting.calls += 1
            return func(*args, **(kwargs or {}))

    class Silent(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Counting() as mine, Silent() as other:  # type: ignore[no-untyped-call]
        with simulate("cuda:2"):
            assert (torch.ones(1, device="cuda:1") + 1).device == torch.device("cuda:1")
            with Counting():
                assert torch.ones(1, device="cuda:1").device == torch.device("cuda:1")
        assert list(TORCH.overrides._get_current_function_mode_stack()) == [mine]
        assert list(_get_current_dispatch_mode_stack()) == [other]
    assert Counting.calls > 0


@pytest.mark.parametrize("wrap", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_is_entered_within_any_state_of_autograd(wrap: Callable[[], Any]) -> None:
    with wrap(), simulate("cuda:2"):
        assert (torch.ones(1, device="cuda:1") * 2).device == torch.device("cuda:1")


def test_tensors_are_of_the_cpu_outside_and_where_they_were_inside() -> None:
    simulation = simulate("cuda:2")
    with simulation:
        tensor, layer = torch.ones(2, device="cuda:1"), torch.nn.Linear(2, 2).cuda(0)

    assert tensor.device.type == "cpu"
    assert not tensor.is_cuda
    assert tensor.untyped_storage().device.type == layer.weight.device.type == "cpu"
    assert repr(tensor) == "tensor([1., 1.])"
    assert tensor.numpy().tolist() == (tensor + torch.zeros(2)).tolist() == [1.0, 1.0]

    with simulation:
        assert (tensor.device, layer.weight.device) == (torch.device("cuda:1"), torch.device("cuda:0"))
        assert TORCH.cuda.memory_allocated(1) == 512
        with pytest.raises(RuntimeError, match="cuda:1"):
            tensor + torch.zeros(2)


def test_simulations_do_not_see_each_others_tensors() -> None:
    with simulate("cuda:2"):
        tensor = torch.ones(2, device="cuda:1")

    with simulate("cuda:2"):
        assert tensor.device.type == "cpu"
        assert (tensor + torch.ones(2)).device.type == "cpu"
        assert TORCH.cuda.memory_allocated(1) == 0
        assert tensor.cuda(0).device == torch.device("cuda:0")
    with simulate("mps"):
        assert not tensor.is_mps
        assert tensor.to("mps").is_mps


def test_one_simulation_at_a_time(subtests: Any) -> None:
    message = r"^a simulation of cuda:2 is under way in this process; leave it before another of {} begins$"
    before = state()
    with simulate("cuda:2") as simulation:
        with subtests.test("the same"), pytest.raises(SimulationError, match=message.format("cuda:2")):
            simulation.__enter__()
        other = simulate("mps")
        with subtests.test("another"), pytest.raises(SimulationError, match=message.format("mps")):
            other.__enter__()
        with subtests.test("of another thread"), ThreadPoolExecutor(1) as pool:
            failed = pool.submit(other.__enter__).exception()
            assert isinstance(failed, SimulationError)
        assert torch.ones(1, device="cuda:1").is_cuda
    assert differences(before, state()) == []


def test_simulated_cards_are_not_called_real() -> None:
    with simulate("cuda:2"), pytest.raises(SimulationError, match=r"^a simulation of cuda:2 is under way"):
        simulate("cuda").__enter__()


def test_leaving_what_was_never_entered_does_not_end_another() -> None:
    with simulate("cuda:2"):
        with pytest.raises((SimulationError, RuntimeError, AttributeError)):
            simulate("xpu").__exit__(None, None, None)
        with pytest.raises(SimulationError, match="under way"), simulate("mps"):
            pass


@pytest.mark.parametrize(
    ("spec", "module", "count", "found"),
    [
        ("cuda:2", torch.cuda, 1, "cuda:2: 1 real cuda device is here"),
        ("cuda", torch.cuda, 3, "cuda:1: 3 real cuda devices are here"),
        ("rocm", torch.cuda, 1, "rocm:1: 1 real cuda device is here"),
        ("xpu", torch.xpu, 2, "xpu:1: 2 real xpu devices are here"),
        ("mps", torch.backends.mps, 1, "mps: 1 real mps device is here"),
    ],
)
def test_real_cards_are_never_shadowed(
    spec: str, module: Any, count: int, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_available", lambda: True)
    monkeypatch.setattr(module, "device_count", lambda: count, raising=False)

    with pytest.raises(SimulationError) as caught:
        simulate(spec)

    assert str(caught.value).startswith(f"cannot simulate {found}, and real cards are never shadowed; run on them, or")


def test_a_build_with_cuda_and_no_card_can_simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    assert simulate("cuda:2").profile == parse("cuda:2")


def test_real_cards_of_another_type_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    assert simulate("mps").profile.devices == ("mps:0",)


def test_compiled_functions_run_uncompiled_and_are_checked() -> None:
    calls: list[torch.device] = []

    def double(tensor: torch.Tensor) -> torch.Tensor:
        calls.append(tensor.device)
        return tensor * 2

    compiled: Any = torch.compile(double)
    with simulate("cuda:2"):
        tensor = torch.ones(1, device="cuda:1")
        assert [compiled(tensor).device, compiled(tensor).device] == [torch.device("cuda:1")] * 2
        layer: Any = torch.compile(torch.nn.Linear(1, 1).cuda(0))
        with pytest.raises(RuntimeError, match="cuda:0"):
            layer(torch.ones(1, 1))
    assert calls == [torch.device("cuda:1")] * 2
