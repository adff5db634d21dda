"""An interruption while a simulation is entered or left: all of it is there afterwards, or nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from simulation.test_driver_restores import owners

import pytest_llmdevice.simulation
from pytest_llmdevice import simulate
from pytest_llmdevice.plugin.simulation_plugin import Stage
from pytest_llmdevice.simulation import active
from pytest_llmdevice.simulation.patches import Patches

FOLDER = pytest_llmdevice.simulation.__path__[0]


class Interruption(BaseException):
    pass


class Steps:
    """Counts the lines of the simulation's code that run, and raises before one of them."""

    def __init__(self, at: tuple[str, int] | None = None) -> None:
        self.at = at
        self.lines: dict[tuple[str, int], None] = {}

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            self.lines[line] = None
            if line == self.at:
                self.at = None
                raise Interruption
        return self

    def run(self, call: Callable[[], Any]) -> None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        finally:
            sys.settrace(before)


def _state() -> list[Any]:
    classes = [torch.Tensor, torch.UntypedStorage, threading.Thread, ThreadPoolExecutor, PartialState]
    modules = [torch._dynamo.eval_frame, torch.nn.functional, torch.autograd, torch._C._autograd, torch.random]
    found = [*owners(), *classes, *modules, torch._tensor_str, torch.jit.ScriptFunction]
    state: list[Any] = [{name: id(value) for name, value in vars(owner).items()} for owner in found]
    return [*state, list(sys.meta_path), torch._C._len_torch_function_stack(), active()]


def _warm() -> None:
    with simulate("cuda"):
        torch.zeros(1, device="cuda")
    # Modules are loaded on their first use, which would count as a change.
    torch.cuda.is_available(), torch.xpu.is_available(), torch.backends.mps.is_available(), torch.nn.Module().to("cpu")


@pytest.mark.parametrize("spec", ["cuda:2", "xpu", "mps"])
def test_an_interruption_of_entering_leaves_nothing(spec: str) -> None:
    _warm()
    machine = simulate(spec)
    before, steps = _state(), Steps()
    steps.run(machine.__enter__)
    machine.__exit__(None, None, None)
    assert len(steps.lines) > 200
    for line in steps.lines:
        with pytest.raises(Interruption):
            Steps(line).run(machine.__enter__)
        assert _state() == before, line
    with machine:
        assert torch.zeros(1, device=machine.machine.devices[0]).device == machine.machine.devices[0]


@pytest.mark.parametrize("spec", ["cuda:2", "xpu", "mps"])
def test_an_interruption_of_leaving_leaves_nothing(spec: str) -> None:
    _warm()
    machine = simulate(spec)
    before, steps = _state(), Steps()
    machine.__enter__()
    steps.run(lambda: machine.__exit__(None, None, None))
    assert _state() == before
    assert len(steps.lines) > 20
    not_begun = []
    for line in steps.lines:
        machine.__enter__()
        with pytest.raises(Interruption):
            Steps(line).run(lambda: machine.__exit__(None, None, None))
        if active() is machine:
            # Nothing of it is undone: it can be left.
            assert torch.zeros(1, device=machine.machine.devices[0]).device == machine.machine.devices[0]
            not_begun.append(line)
            machine.__exit__(None, None, None)
        assert _state() == before, line
    assert len(not_begun) <= 3


def test_the_next_cell_leaves_what_an_interruption_has_left() -> None:
    stage, first, second = Stage(), simulate("cuda:2"), simulate("xpu")
    stage.switch(first)
    line = (f"{FOLDER}/simulate.py", type(first).__exit__.__code__.co_firstlineno + 3)
    with pytest.raises(Interruption):
        Steps(line).run(lambda: stage.switch(None))
    assert active() is first
    stage.switch(second)
    assert active() is second
    stage.switch(None)
    assert active() is None


def test_what_fails_to_be_undone_is_raised_at_the_end() -> None:
    patches, calls = Patches(), []

    def fail() -> None:
        calls.append("failed")
        raise ValueError("no")

    patches.later(lambda: calls.append("first"))
    patches.later(fail)
    patches.later(lambda: calls.append("last"))
    with pytest.raises(ValueError, match="no"):
        patches.undo()
    assert calls == ["last", "failed", "failed", "first"]
