"""Tensor subclasses on simulated cards: they say that they are there, and no code of theirs ends the process."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation.tensor_subclasses import USES, kind, kinds, outcome
from torch._subclasses.fake_tensor import FakeTensorMode

from pytest_llmdevice import simulate
from pytest_llmdevice.errors import SimulationError


@pytest.mark.parametrize(("style", "make"), kinds())
def test_a_subclass_is_where_a_plain_tensor_is(style: str, make: str) -> None:
    # What is on the CPU already is not moved there; a change of dtype makes a new tensor likewise.
    here = {
        use: outcome("half" if use in {"to cpu", "cpu"} else use, kind(style, make)(torch.ones(4, 4))) for use in USES
    }
    with simulate("cuda:2"):
        for use, expected in here.items():
            plain = outcome(use, torch.ones(4, 4, device="cuda:1"))
            there = outcome(use, kind(style, make)(torch.ones(4, 4, device="cuda:1")))
            where = plain.device if expected.error is None else None
            assert (use, there.kind, there.device) == (use, expected.kind, where)
            assert there.inner in {None, there.device}, use


@pytest.mark.parametrize("move", ["to", "cuda", "layer"])
@pytest.mark.parametrize(("style", "make"), kinds())
def test_a_subclass_moves_with_what_it_wraps(style: str, make: str, move: str) -> None:
    tensor = kind(style, make)(torch.ones(4, 4))
    with simulate("cuda:2"):
        if move == "layer":
            if type(tensor.detach()) is torch.Tensor:
                pytest.skip("PyTorch makes no parameter of it")
            layer = torch.nn.Linear(4, 4, bias=False)
            layer.weight = torch.nn.Parameter(tensor, requires_grad=False)
            moved: Any = layer.to("cuda:1").weight
        else:
            moved = tensor.cuda(1) if move == "cuda" else tensor.to("cuda:1")
        assert str(moved.device) == "cuda:1"
        assert moved.is_cuda
        assert moved.get_device() == 1
        assert str(moved.__dict__.get("inner", moved).device) == "cuda:1"
        assert str((moved + 1).device) == "cuda:1"
        assert str(moved.to("cuda:0").device) == "cuda:0"


@pytest.mark.parametrize(("style", "make"), kinds())
def test_a_subclass_beside_a_tensor_of_another_card(style: str, make: str) -> None:
    with simulate("cuda:2"):
        tensor = kind(style, make)(torch.ones(4, 4, device="cuda:1"))
        with pytest.raises(RuntimeError, match="same device"):
            tensor @ torch.ones(4, 4, device="cuda:0")


@pytest.mark.parametrize("make", ["wraps", "asks its class"])
def test_a_wrapper_holds_no_memory_of_its_own(make: str) -> None:
    with simulate("cuda:2"):
        inner = torch.ones(1024, device="cuda:1")
        before = torch.cuda.memory_allocated(1), torch.cuda.memory_stats(1)["active.all.current"]
        wrapper = kind("disabled", make)(inner)
        assert torch.cuda.memory_allocated(1) == before[0]
        del wrapper
        assert torch.cuda.memory_stats(1)["active.all.current"] == before[1]


def test_classes_are_left_as_they_were() -> None:
    before = {name: vars(kind("default", "wraps").__mro__[1])[name] for name in ("__torch_dispatch__", "__new__")}
    with simulate("cuda"):

        class Late(kind("default", "wraps")):  # type: ignore[misc]
            @classmethod
            def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return super().__torch_dispatch__(func, types, args, kwargs)

        late: Any = Late(torch.ones(2, device="cuda"))
        assert str((late + 1).inner.device) == "cuda:0"
    assert before == {name: vars(kind("default", "wraps").__mro__[1])[name] for name in before}
    assert isinstance(vars(Late)["__torch_dispatch__"], classmethod)
    assert "__init_subclass__" not in vars(torch.Tensor)
    assert torch._C.DisableTorchFunction is not torch._C.DisableTorchFunctionSubclass


def test_kernels_that_only_a_card_has_are_refused() -> None:
    tensor: Any = torch.Tensor
    with simulate("cuda"), pytest.raises(SimulationError, match="asks PyTorch for kernels"):
        tensor._make_subclass(kind("default", "made of"), torch.ones(2), device_for_backend_keys="cuda:0")


def test_nothing_ends_the_process() -> None:
    script = """
        import torch
        from pytest_llmdevice import simulate
        from simulation.tensor_subclasses import USES, kind, kinds, outcome

        for card in ("cuda:2", "xpu", "mps"):
            with simulate(card) as machine:
                for use in USES:
                    for style, make in kinds():
                        outcome(use, kind(style, make)(torch.ones(4, 4, device=machine.machine.devices[-1])))
        print("alive")
        """
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, cwd=tests
    )
    assert done.stdout == "alive\n", done.stderr[-2000:]


class _Moves(torch.Tensor):
    """Wraps a tensor, and moves it by the operator itself, as optimum-quanto's do."""

    inner: Any

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor) -> Any:
        make: Any = torch.Tensor._make_wrapper_subclass
        return make(cls, inner.size(), dtype=inner.dtype, device=inner.device)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # By the operator without the name of its overload, which looks at the arguments again.
        return cls(func.overloadpacket(args[0].inner, **(kwargs or {})))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_a_wrapper_wraps_may_be_a_wrapper(depth: int) -> None:
    tensor: Any = torch.ones(4, 4)
    for _ in range(depth):
        tensor = _Moves(tensor)
    with simulate("cuda:2"):
        for card in ("cuda:1", "cuda:0", "cpu"):
            tensor = tensor.to(card)
            inner, found = tensor, []
            while inner is not None:
                found.append(str(inner.device))
                inner = inner.__dict__.get("inner")
            assert found == [card] * (depth + 1)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("library", ["torchao.quantization", "optimum.quanto"])
def test_quantized_weights_of_a_library(library: str, bits: int) -> None:
    quantization = pytest.importorskip(library)
    if library == "torchao.quantization":
        eight = quantization.Int8WeightOnlyConfig()
        groups = {"granularity": quantization.PerGroup(32)}
        four = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, **groups)  # type: ignore[attr-defined]

    def quantize(layer: torch.nn.Module) -> torch.nn.Module:
        model = torch.nn.Sequential(layer)
        if library == "torchao.quantization":
            quantization.quantize_(model, eight if bits == 8 else four)
        else:
            quantization.quantize(model, weights=quantization.qint8 if bits == 8 else quantization.qint4)
            quantization.freeze(model)
        return model

    layer = torch.nn.Linear(64, 64)
    inputs = torch.ones(2, 64)
    wanted = quantize(copy.deepcopy(layer))(inputs)
    with simulate("cuda:2"):
        there = quantize(copy.deepcopy(layer).to("cuda:1"))
        moved = quantize(copy.deepcopy(layer)).to("cuda:1")
        for model in (there, moved):
            for card in ("cuda:1", "cuda:0"):
                model.to(card)
                devices = _devices_of_quantized(model)
                assert len(devices) > 1
                assert set(devices) == {card}
                with torch.no_grad():
                    result = model(inputs.to(card))
                assert str(result.device) == card
                assert torch.equal(result.cpu(), wanted)
            with pytest.raises(RuntimeError, match="same device"):
                model(inputs.to("cuda:1"))


def _devices_of_quantized(model: torch.nn.Module) -> list[str]:
    """The devices of the weights that a library has quantized, and of the tensors that they consist of."""
    # It keeps no reference: PyTorch could not move the weights.
    weights = [weight for weight in model.parameters() if type(weight) is not torch.nn.Parameter]
    return [
        str(part.device)
        for weight in weights
        for part in (weight, *vars(weight).values())
        if isinstance(part, torch.Tensor)
    ]


def test_fake_tensors_know_their_card_and_compare_it() -> None:
    with simulate("cuda:2"), FakeTensorMode() as mode:
        fake = torch.empty(2, 3, device="cuda:1")
        assert (fake @ torch.empty(3, 4, device="cuda:1")).device == torch.device("cuda:1")
        assert (fake.to("cpu").device, fake.cuda(0).device) == (torch.device("cpu"), torch.device("cuda:0"))
        with pytest.raises(RuntimeError, match="found at least two devices, cuda:1 and cpu!"):
            fake + torch.empty(2, 3)
        with mode:
            assert type(fake + fake).__name__ == "FakeTensor"
