"""What libraries remember about devices is forgotten when the devices come and when they go."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation import libraries, simulate
from pytest_llmdevice.simulation.patches import Patches


def answers() -> dict[str, bool]:
    import accelerate.utils
    import transformers.utils
    from transformers.utils import import_utils

    utils: Any = transformers.utils

    return {
        "cuda": import_utils.is_torch_cuda_available(),
        "cuda of utils": utils.is_torch_cuda_available(),
        "mps": import_utils.is_torch_mps_available(),
        "xpu": import_utils.is_torch_xpu_available(),
        "bf16": import_utils.is_torch_bf16_gpu_available(),
        "accelerate cuda": accelerate.utils.is_cuda_available(),
        "accelerate mps": accelerate.utils.is_mps_available(),
        "accelerate xpu": accelerate.utils.is_xpu_available(),
    }


EXPECTED = {
    "cuda:2": {"cuda", "cuda of utils", "bf16", "accelerate cuda"},
    "rocm": {"cuda", "cuda of utils", "bf16", "accelerate cuda"},
    "mps": {"mps", "accelerate mps"},
    "xpu": {"xpu", "accelerate xpu"},
}


@pytest.mark.parametrize("spec", EXPECTED)
def test_answers_are_those_of_the_moment(spec: str) -> None:
    before = answers()
    assert not any(before.values())

    for _ in range(2):
        with simulate(spec):
            inside = answers()
            assert answers() == inside
        assert answers() == before

    assert {name for name, value in inside.items() if value} - {"bf16"} == EXPECTED[spec] - {"bf16"}
    assert inside["bf16"] or "bf16" not in EXPECTED[spec]


def test_they_are_right_after_an_exception_too() -> None:
    with pytest.raises(KeyError, match="cuda is there"), simulate("cuda"):
        raise KeyError("cuda is there" if answers()["cuda"] else "it is not")
    assert not any(answers().values())


def module_with(name: str, **functions: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(functions)
    return module


def test_only_answers_about_devices_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    @cache
    def is_torch_cuda_available() -> bool:
        calls.append("devices")
        return torch.cuda.is_available()

    @cache
    def is_torch_fx_proxy_thing() -> None:
        calls.append("devices too")

    @cache
    def read_a_file() -> None:
        calls.append("file")

    module = module_with(
        "transformers.integrations.mine", is_torch_cuda_available=is_torch_cuda_available, read_a_file=read_a_file
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    other = module_with("mine", is_torch_fx_proxy_thing=is_torch_fx_proxy_thing)
    monkeypatch.setitem(sys.modules, other.__name__, other)

    def ask() -> bool:
        read_a_file()
        is_torch_fx_proxy_thing()
        return is_torch_cuda_available()

    assert not ask()
    with simulate("cuda"):
        assert ask()
        assert ask()
    assert not ask()
    assert sorted(calls) == ["devices"] * 3 + ["devices too", "file"]


def test_accelerate_is_imported_before_there_are_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[tuple[str, bool]] = []
    monkeypatch.setattr(libraries, "IMPORTED_FIRST", ("_mine_that_is_here", "_mine_that_is_not"))
    monkeypatch.setattr(libraries, "find_spec", lambda name: name == "_mine_that_is_here" or None)
    monkeypatch.setattr(libraries, "import_module", lambda name: imported.append((name, torch.cuda.is_available())))

    with simulate("cuda"):
        pass

    assert imported == [("_mine_that_is_here", False)]


def test_what_is_imported_is_not_imported_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "import_module", pytest.fail)
    monkeypatch.setattr(libraries, "IMPORTED_FIRST", ("os",))
    patches = Patches()

    libraries.install(simulate("cuda").machine, patches)  # fails on an import
    patches.undo()


def test_a_model_goes_to_the_cards_that_libraries_find() -> None:
    from accelerate import dispatch_model
    from accelerate.state import AcceleratorState, PartialState

    with simulate("cuda:2"):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        model = dispatch_model(model, {"0": 0, "1": 1})
        assert [layer.weight.device.index for layer in model] == [0, 1]
        assert model(torch.ones(1, 2, device="cuda:0")).device == torch.device("cuda:0")
        assert PartialState().default_device == torch.device("cuda")
        PartialState._reset_state()
        AcceleratorState._reset_state()


@pytest.fixture
def xformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library of that name, which notes on import whether it sees a card."""
    (tmp_path / "xformers.py").write_text("import torch\nsees_cards = torch.cuda.is_available()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("xformers", None)


@pytest.mark.usefixtures("xformers")
def test_what_looks_for_cards_on_import_is_not_imported_inside() -> None:
    finders = list(sys.meta_path)

    with simulate("cuda"):
        assert importlib.util.find_spec("xformers") is not None
        with pytest.raises(
            SimulationError,
            match=r"^xformers looks for devices while it is imported, and would find simulated ones: import it before "
            r"the simulation begins$",
        ):
            importlib.import_module("xformers")
    assert "xformers" not in sys.modules
    assert sys.meta_path == finders
    assert importlib.import_module("xformers").sees_cards is False


@pytest.mark.usefixtures("xformers")
def test_what_was_imported_before_is_there_inside() -> None:
    before = importlib.import_module("xformers")
    with simulate("cuda"):
        assert importlib.import_module("xformers") is before
