"""Checkpoints built once per session in a temporary cache, and models loaded from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice import zoo

Load = Callable[..., Any]


@pytest.fixture(scope="session")
def zoo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # Workers share what they build, as the plugin's own do.
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "zoo-cache"


@pytest.fixture(autouse=True)
def no_cache_of_the_user(zoo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMDEVICE_CACHE", str(zoo_cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def single_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def load(zoo_cache: Path, single_thread: None) -> Load:
    """`load(name, dtype="float32")`: the model of a family, loaded once per session."""

    @cache
    def load_once(name: str, dtype: str = "float32") -> Any:
        import torch
        import transformers

        auto_class = getattr(transformers, zoo.family(name).auto_class)
        folder = zoo.checkpoint(name, cache=zoo_cache)
        return auto_class.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    return load_once
