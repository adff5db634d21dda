"""Loaders that leave something behind in the process, for everybody who runs after them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from corpus.case import Case
from corpus.load_values import plain
from pytest_llmdevice import Cell


def nothing() -> None:
    pass


@dataclass
class Leaves:
    """Does something before it loads, and does not undo it."""

    left: Callable[[], Any] = nothing

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.left()
        return plain(checkpoint, cell).eval()


def no_gradients() -> None:
    torch.set_grad_enabled(False)


def root_logger() -> None:
    logging.basicConfig(level=logging.ERROR, force=True)


def all_warnings() -> None:
    warnings.simplefilter("default")


def unsafe_files() -> None:
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def deterministic() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)


def seed() -> None:
    torch.manual_seed(42)


@dataclass
class OwnNorm:
    """Puts its own norm into the class, and so into each model of the process, or into the model."""

    whole_class: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell)
        norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
        usual = type(norms[0]).forward

        def forward(module: Any, hidden: torch.Tensor) -> torch.Tensor:
            return usual(module, hidden)

        if self.whole_class:
            type(norms[0]).forward = forward
        else:
            for module in norms:
                module.forward = forward.__get__(module)
        return model.eval()


class Sizes:
    """Remembers how large a model is, by a cache that keeps its arguments."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = plain(checkpoint, cell).eval()
        self.size(model)
        return model

    @cache  # noqa: B019 - the bug
    def size(self, model: Any) -> int:
        return sum(parameter.numel() for parameter in model.parameters())


class Counts(Sizes):
    def size(self, model: Any) -> int:  # type: ignore[override]
        return sum(parameter.numel() for parameter in model.parameters())


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, missed: str = "") -> Case:
    return Case(name, "process", f"https://github.com/{source}", story, buggy, fixed, cells, missed=missed)


CASES = (
    _case(
        "gradients-left-off",
        "huggingface/diffusers/issues/13790",
        "no gradients for the whole process after a load",
        partial(Leaves, no_gradients),
        Leaves,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "root-logger-configured",
        "epfl-dlab/transformers-CFG/issues/50",
        "the library configures the root logger: the program's own messages are gone",
        partial(Leaves, root_logger),
        Leaves,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "filters-of-warnings-replaced",
        "NVIDIA/TransformerEngine/issues/812",
        "the filters of warnings are those of the library from now on",
        partial(Leaves, all_warnings),
        Leaves,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
    _case(
        "unsafe-files-allowed",
        "deepmodeling/deepmd-gnn/issues/149",
        "an environment variable makes each later torch.load take pickles",
        partial(Leaves, unsafe_files),
        Leaves,
        Cell("opt", "cpu", "float32"),
    ),
    _case(
        "deterministic-left-on",
        "intel/auto-round/pull/805",
        "deterministic algorithms are asked for the whole process",
        partial(Leaves, deterministic),
        Leaves,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "seed-of-the-process",
        "online-ml/deep-river/issues/172",
        "loading seeds torch's random numbers for everybody",
        partial(Leaves, seed),
        Leaves,
        Cell("mistral", "cpu", "float32"),
    ),
    _case(
        "class-left-patched",
        "mosaicml/llm-foundry/pull/520",
        "a method of a class of transformers is replaced, for each other model too",
        partial(OwnNorm, whole_class=True),
        partial(OwnNorm, whole_class=False),
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "kept-by-a-cached-method",
        "iiasa/ixmp4/pull/25",
        "a cached method keeps each model that it was asked about",
        Sizes,
        Counts,
        Cell("llama", "cpu", "float32"),
    ),
)
