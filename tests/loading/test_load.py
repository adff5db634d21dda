"""One load of one cell: what comes of it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.errors import ConfigurationError, UnsupportedByLibrary
from pytest_llmdevice.loading.load import Leftovers, Loaded
from pytest_llmdevice.loading.target import CONTRACT, BuiltinTarget
from pytest_llmdevice.monitoring.process_state import unchanged_process

Checkpoint = Callable[[str], str]

CELL = Cell("llama", "cpu", "float32")


def loading(do: Callable[[str, Cell], object], leftovers: Leftovers | None = None) -> Loaded:
    return Loaded.load(SimpleNamespace(load=do), Path("somewhere"), CELL, leftovers)


def failing(error: BaseException) -> Callable[[str, Cell], object]:
    def load(checkpoint: str, cell: Cell) -> object:
        raise error

    return load


def test_a_model_that_loads_is_there_with_the_time_it_took(checkpoint: Checkpoint) -> None:
    loaded = Loaded.load(BuiltinTarget(), Path(checkpoint("llama")), CELL)
    assert isinstance(loaded.model, nn.Module)
    assert loaded.seconds > 0
    assert (loaded.error, loaded.unsupported) == ("", "")


def test_the_target_gets_the_folder_as_text_and_the_cell() -> None:
    seen: list[object] = []

    def load(checkpoint: str, cell: Cell) -> nn.Module:
        seen.extend([checkpoint, cell])
        return nn.Linear(1, 1)

    loading(load)
    assert seen == ["somewhere", CELL]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no kernel\nsecond line"), "llama.cpu.fp32.none.to did not load: RuntimeError: no kernel"),
        (KeyError("lm_head"), "llama.cpu.fp32.none.to did not load: KeyError: 'lm_head'"),
        (ValueError(), "llama.cpu.fp32.none.to did not load: ValueError"),
        (OSError("\n\n  at last\n"), "llama.cpu.fp32.none.to did not load: OSError: at last"),
    ],
)
def test_an_error_is_reported_with_its_cause_in_the_first_line(error: Exception, line: str) -> None:
    loaded = loading(failing(error))
    assert loaded.error.splitlines()[0] == line
    assert "Traceback (most recent call last)" in loaded.error
    assert "in load" in loaded.error
    assert loaded.model is None


def test_what_a_library_cannot_do_is_no_error() -> None:
    loaded = loading(failing(UnsupportedByLibrary("transformers 4 cannot")))
    assert (loaded.unsupported, loaded.error, loaded.model) == ("transformers 4 cannot", "", None)


class Own(BaseException):
    """Of a library that means to get past `except Exception`."""


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), pytest.skip.Exception("not here")])
def test_an_interruption_is_not_kept_back(interruption: BaseException) -> None:
    with pytest.raises(type(interruption)):
        loading(failing(interruption))


@pytest.mark.parametrize("end", [SystemExit(1), GeneratorExit(), asyncio.CancelledError(), Own()])
def test_a_loader_that_would_end_the_run_fails_its_cell(end: BaseException) -> None:
    loaded = loading(failing(end))
    assert loaded.error.startswith(f"{CELL.id} did not load: {type(end).__name__}")
    assert loaded.exception is end


def test_a_script_that_exits_is_told_to_return() -> None:
    assert "load must return, not call sys.exit" in loading(failing(SystemExit(2))).cause


def test_an_exception_without_a_text_of_its_own_is_reported_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert loading(failing(Mute())).error.startswith(
        f"{CELL.id} did not load: Mute: (its text cannot be had: ValueError)"
    )


def test_an_endless_recursion_is_reported() -> None:
    def load(checkpoint: str, cell: Cell) -> object:
        return load(checkpoint, cell)

    assert "did not load: RecursionError: maximum recursion depth exceeded" in loading(load).error


def test_what_was_half_loaded_is_not_kept_alive_by_the_error() -> None:
    models: list[weakref.ref[nn.Module]] = []

    def load(checkpoint: str, cell: Cell) -> object:
        model = nn.Linear(1, 1)
        models.append(weakref.ref(model))
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    loaded = loading(load)
    assert isinstance(loaded.exception, RuntimeError)
    assert models[0]() is None


def test_what_is_no_module_is_refused_with_what_a_target_is() -> None:
    loaded = loading(lambda _checkpoint, _cell: "a model")
    first, second = loaded.error.splitlines()
    assert first.startswith(f"{CELL.id}: load returned a str ('a model'), not a torch.nn.Module: return what ")
    assert second == CONTRACT
    assert loaded.model is None


def test_a_target_without_load_is_an_error_of_the_user() -> None:
    with pytest.raises(ConfigurationError, match="has no function 'load'"):
        Loaded.load(SimpleNamespace(), Path("somewhere"), CELL)


def test_truncated_weights_are_reported_as_such(tiny_llama: Path) -> None:
    weights = tiny_llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    loaded = Loaded.load(BuiltinTarget(), tiny_llama, CELL)
    assert "SafetensorError" in loaded.error.splitlines()[0]


def test_missing_weights_are_reported_with_the_folder(tiny_llama: Path) -> None:
    (tiny_llama / "model.safetensors").unlink()
    first = Loaded.load(BuiltinTarget(), tiny_llama, CELL).error.splitlines()[0]
    assert "OSError" in first
    assert str(tiny_llama) in first


@pytest.mark.parametrize("content", ["{", "", "[]", '{"model_type": "no such type"}'])
def test_a_broken_configuration_is_reported(content: str, tiny_llama: Path) -> None:
    (tiny_llama / "config.json").write_text(content)
    loaded = Loaded.load(BuiltinTarget(), tiny_llama, CELL)
    first = loaded.error.splitlines()[0]
    assert first.startswith("llama.cpu.fp32.none.to did not load: ")
    assert loaded.model is None


def test_a_released_model_is_freed(checkpoint: Checkpoint) -> None:
    loaded = Loaded.load(BuiltinTarget(), Path(checkpoint("llama")), CELL)
    reference = weakref.ref(loaded.model)
    loaded.release()
    assert loaded.model is None
    assert reference() is None


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
def test_an_offloaded_model_is_freed_before_the_next_load(checkpoint: Checkpoint) -> None:
    folder = Path(checkpoint("llama"))
    gc.disable()
    try:
        leftovers = Leftovers()
        cell = Cell("llama", "cpu", "float32", strategy="disk-offload")
        loaded = Loaded.load(BuiltinTarget(), folder, cell, leftovers)
        reference = weakref.ref(loaded.model)
        loaded.release()
        assert reference() is not None
        loading(failing(RuntimeError("no matter")), leftovers)
    finally:
        gc.enable()
    assert reference() is None


def settings() -> list[Any]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return [
        dict(os.environ),
        random.getstate(),
        torch.get_rng_state().tolist(),
        numpy_state[1].tolist(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    ]


def upset() -> None:
    """Change all that a loader may change."""
    os.environ["LLMDEVICE_TEST_NEW"] = "1"
    os.environ["LLMDEVICE_TEST_CHANGED"] = "after"
    os.environ.pop("LLMDEVICE_TEST_REMOVED")
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMDEVICE_TEST_CHANGED", "before")
    monkeypatch.setenv("LLMDEVICE_TEST_REMOVED", "1")


def test_what_a_load_changes_of_the_process_is_put_back() -> None:
    before = settings()
    with unchanged_process():
        upset()
        changed = settings()
    assert settings() == before
    assert all(now != then for now, then in zip(changed, before, strict=True))


@pytest.mark.parametrize("error", [RuntimeError("planted"), UnsupportedByLibrary("planted")])
def test_it_is_put_back_after_a_failure_too(error: Exception) -> None:
    def load(checkpoint: str, cell: Cell) -> object:
        upset()
        raise error

    before = settings()
    loaded = loading(load)
    assert "planted" in loaded.error + loaded.unsupported
    assert settings() == before


def test_it_is_put_back_after_an_interruption_too() -> None:
    def load(checkpoint: str, cell: Cell) -> object:
        upset()
        raise KeyboardInterrupt

    before = settings()
    with pytest.raises(KeyboardInterrupt):
        loading(load)
    assert settings() == before
