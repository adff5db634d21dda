"""The state check: what a load or a generation left changed in the process is found, and put back."""

from __future__ import annotations

import gc
import io
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pytest_llmdevice import Cell, examine, simulate
from pytest_llmdevice.checks import check_state
from pytest_llmdevice.checks.state import HARMLESS
from pytest_llmdevice.diagnosis import Hint
from pytest_llmdevice.diagnosis.hints import state
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget

Checkpoint = Callable[[str], str]

CELL = Cell("llama", "cpu", "float32")

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")

kept: list[Any] = []


def loaded(do: Callable[[], object]) -> Loaded:
    """A load that does `do`."""

    def load(_checkpoint: str, _cell: Cell) -> nn.Module:
        do()
        return nn.Linear(1, 1)

    return Loaded.load(SimpleNamespace(load=load), Path("somewhere"), CELL)


def entered(context: Any) -> None:
    context.__enter__()
    kept.append(context)


def leaves_functions() -> None:
    torch.nn.init.normal_ = lambda tensor, *_: tensor


set_threads: Any = torch.set_num_threads
sharing: Any = torch.multiprocessing.set_sharing_strategy

PLANTED: dict[str, tuple[Callable[[], object], str, Hint]] = {
    "environment": (
        lambda: os.environ.update(CUDA_VISIBLE_DEVICES="3"),
        "environment variable CUDA_VISIBLE_DEVICES",
        state.ENVIRONMENT,
    ),
    "default dtype": (lambda: torch.set_default_dtype(torch.bfloat16), "default dtype", state.DEFAULT_DTYPE),
    "default device": (lambda: torch.set_default_device("meta"), "default device", state.DEFAULT_DEVICE),
    "device context": (lambda: torch.device("meta").__enter__(), "default device", state.DEFAULT_DEVICE),
    "initialiser": (leaves_functions, "torch.nn.init.normal_", state.PATCHED),
    "layer": (
        lambda: setattr(nn.Linear, "reset_parameters", lambda _: None),
        "torch.nn.Linear.reset_parameters",
        state.PATCHED,
    ),
    "method of tensors": (lambda: setattr(torch.Tensor, "cuda", lambda one: one), "torch.Tensor.cuda", state.PATCHED),
    "availability": (
        lambda: setattr(torch.cuda, "is_available", lambda: True),
        "torch.cuda.is_available",
        state.PATCHED,
    ),
    "empty weights": (
        lambda: entered(accelerate.init_empty_weights()),
        "torch.nn.Module.register_parameter",
        state.PATCHED,
    ),
    "autocast": (lambda: entered(torch.autocast("cpu", torch.bfloat16)), "autocast on cpu", state.AUTOCAST),
    "working folder": (lambda: os.chdir("/"), "working folder", state.FOLDER),
    "collector": (gc.disable, "garbage collection", state.COLLECTOR),
    "thresholds": (lambda: gc.set_threshold(5, 5, 5), "thresholds of garbage collection", state.COLLECTOR),
    "gradients": (lambda: torch.set_grad_enabled(False), "gradients", state.GRADIENTS),
    "inference mode": (lambda: entered(torch.inference_mode()), "inference mode", state.GRADIENTS),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection", state.GRADIENTS),
    "threads": (lambda: torch.set_num_threads(2), "threads of torch", state.THREADS),
    "processors": (
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        "processors that the process may use",
        state.THREADS,
    ),
    "deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "deterministic algorithms",
        state.GLOBAL,
    ),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "torch.backends.cudnn.benchmark", state.GLOBAL),
    "kernels": (
        lambda: torch.backends.cuda.enable_flash_sdp(False),
        "torch.backends.cuda.enable_flash_sdp",
        state.GLOBAL,
    ),
    "reductions": (
        lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
        state.PRECISION,
    ),
    "signal": (
        lambda: signal.signal(signal.SIGTERM, lambda *_: None),
        "handler of SIGTERM",
        state.GLOBAL,
    ),
    "standard output": (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout", state.GLOBAL),
    "standard error": (lambda: setattr(sys, "stderr", io.StringIO()), "sys.stderr", state.GLOBAL),
    "descriptor": (lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2), "file descriptor 2", state.GLOBAL),
    "exceptions": (lambda: setattr(sys, "excepthook", print), "sys.excepthook", state.GLOBAL),
    "level": (lambda: logging.getLogger().setLevel(logging.ERROR), "level of the root logger", state.GLOBAL),
    "logging disabled": (lambda: logging.disable(logging.CRITICAL), "logging.disable", state.GLOBAL),
    "log handlers": (logging.root.handlers.clear, "handlers of the root logger", state.GLOBAL),
    "warnings": (lambda: warnings.simplefilter("ignore"), "all warnings", state.GLOBAL),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, other_locale()), "locale", state.GLOBAL),
    "recursion": (lambda: sys.setrecursionlimit(5000), "sys.setrecursionlimit", state.GLOBAL),
    "sockets": (lambda: socket.setdefaulttimeout(5), "default timeout of sockets", state.GLOBAL),
    "start method": (
        lambda: multiprocessing.set_start_method("spawn", force=True),
        "start method of processes",
        state.GLOBAL,
    ),
    "sharing": (lambda: sharing("file_system"), "sharing of tensors", state.GLOBAL),
    "hook": (
        lambda: register_module_forward_hook(lambda *_: None),
        "torch.nn.modules.module._global_forward_hooks",
        state.HOOK,
    ),
    "hook before": (
        lambda: register_module_forward_pre_hook(lambda *_: None),
        "torch.nn.modules.module._global_forward_pre_hooks",
        state.HOOK,
    ),
}


def other_locale() -> str:
    return "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"


def hidden_for_a_while() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")


def written_elsewhere() -> None:
    with redirect_stdout(io.StringIO()):
        print("loading")  # noqa: T201


RESTORED: dict[str, Callable[[], Any]] = {
    "gradients": lambda: torch.no_grad()(torch.zeros)(1),
    "inference mode": lambda: torch.inference_mode()(torch.zeros)(1),
    "threads": lambda: [set_threads(number) for number in (2, 1)],
    "warnings": hidden_for_a_while,
    "standard output": written_elsewhere,
    "hook": lambda: register_module_forward_hook(lambda *_: None).remove(),
    "signal": lambda: signal.signal(signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: None)),
    "logger of its own": lambda: logging.getLogger("somebody").setLevel(logging.ERROR),
    "one warning": lambda: warnings.filterwarnings("ignore", message="of somebody's"),
    "log handler": logging.basicConfig,
}


@pytest.mark.parametrize("do", RESTORED.values(), ids=RESTORED)
def test_what_a_load_puts_back_itself_is_no_finding(do: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    assert check_state(loaded(do).changes, ()).passed


@pytest.mark.parametrize("planted", PLANTED)
def test_what_a_load_leaves_behind_is_found_and_put_back(planted: str) -> None:
    do, where, hint = PLANTED[planted]
    found = loaded(do)
    (finding,) = check_state(found.changes, ()).findings
    assert (finding.where, finding.hint) == (where, hint)
    assert finding.actual.endswith(", when load came back")
    # Put back: the next load changes nothing.
    assert check_state(loaded(lambda: None).changes, ()).passed


# Filters that a generation adds are taken away where its warnings are recorded.
@pytest.mark.parametrize("planted", [name for name in PLANTED if name != "warnings"])
def test_what_a_generation_leaves_behind_is_found(planted: str, checkpoint: Checkpoint) -> None:
    do, where, _ = PLANTED[planted]
    model = nn.Linear(1, 1)
    done: list[int] = []

    def generate(_model: Any, prompts: Any, _count: int) -> list[list[int]]:
        if not done:
            done.append(1)
            do()
        return [[1] for _ in prompts]

    generated = generate_traced(SimpleNamespace(generate=generate), model, [[1]], 1)
    (finding,) = check_state((), generated.changes).findings
    assert finding.where == where
    assert finding.actual.endswith(", when generate came back")


def test_the_current_card_is_found_on_a_simulated_machine() -> None:
    with simulate("cuda:2"):
        found = loaded(lambda: torch.cuda.set_device(1))
        assert torch.cuda.current_device() == 0
    (finding,) = check_state(found.changes, ()).findings
    assert (finding.expected, finding.hint) == ("cuda:0", state.CURRENT_CARD)
    assert finding.actual.startswith("cuda:1")


def test_values_of_variables_that_may_be_secret_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMDEVICE_TEST_PASSWORD", "open sesame")
    found = loaded(lambda: os.environ.update(LLMDEVICE_TEST_PASSWORD="swordfish", LLMDEVICE_TEST_NEW="xyzzy"))
    message = check_state(found.changes, ()).message()
    assert "LLMDEVICE_TEST_PASSWORD" in message
    assert not any(secret in message for secret in ("sesame", "swordfish", "xyzzy"))


def test_device_variables_are_shown_with_their_values() -> None:
    found = loaded(PLANTED["environment"][0])
    (finding,) = check_state(found.changes, ()).findings
    assert "'3'" in finding.actual


@pytest.mark.parametrize("name", [*HARMLESS])
def test_variables_that_decide_nothing_are_no_findings(name: str) -> None:
    found = loaded(lambda: os.environ.update({f"{name}X": "1"}))
    result = check_state(found.changes, ())
    assert result.passed
    assert result.evidence["harmless environment variables"] == 1


def upset_what_loaders_upset() -> None:
    torch.manual_seed(3)
    torch.rand(1)
    random.random()
    np.random.seed(3)  # noqa: NPY002


def test_random_states_are_evidence_and_put_back() -> None:
    before = torch.get_rng_state(), random.getstate()
    result = check_state(loaded(upset_what_loaders_upset).changes, ())
    assert result.passed
    assert result.evidence["random numbers of torch"] == "seeded with 3 by load"
    assert {"random numbers of python", "random numbers of numpy"} <= result.evidence.keys()
    assert bool((torch.get_rng_state() == before[0]).all())
    assert random.getstate() == before[1]


def test_random_states_are_findings_where_the_matrix_says_so() -> None:
    result = check_state(loaded(upset_what_loaders_upset).changes, (), random_state="kept")
    assert {finding.where for finding in result.findings} == {
        "random numbers of torch",
        "random numbers of python",
        "random numbers of numpy",
    }
    assert {finding.hint for finding in result.findings} == {state.RANDOM}


@pytest.mark.parametrize("seeds", [False, True])
def test_a_target_that_seeds_is_held_to_what_the_matrix_says(seeds: bool, checkpoint: Callable[[str], str]) -> None:
    class Target(BuiltinTarget):
        def load(self, folder: str, cell: Cell) -> Any:
            if seeds:
                torch.manual_seed(0)
            return super().load(folder, cell)

    cell = Cell("llama", "cpu", "float32")
    (result,) = (
        each for each in examine(Target(), checkpoint("llama"), cell, random_state="kept") if each.check == "state"
    )
    assert result.passed is not seeds


def test_a_load_that_seeds_and_draws_nothing_seeds_the_process() -> None:
    def load(_checkpoint: str, _cell: Cell) -> nn.Module:
        torch.manual_seed(3)
        return nn.Identity()

    changes = Loaded.load(SimpleNamespace(load=load), Path("somewhere"), CELL).changes
    (finding,) = check_state(changes, ()).findings
    assert (finding.where, finding.hint) == ("random numbers of torch", state.RANDOM)
    assert finding.actual == "seeded with 3, when load came back"
    # A generation that samples where it is asked to may seed that; here it is greedy.
    assert check_state((), changes).passed
    allowed = check_state(changes, (), random_state="free")
    assert allowed.passed
    assert allowed.evidence["random numbers of torch"] == "seeded with 3 by load"


def test_a_seed_that_is_put_back_is_none() -> None:
    def seeds() -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)

    assert check_state(loaded(seeds).changes, ()).passed


def test_torch_compile_is_no_finding() -> None:
    found = loaded(lambda: torch.compile(nn.Linear(2, 2), backend="eager")(torch.ones(2)))
    assert check_state(found.changes, ()).passed


def test_what_the_compiler_of_torch_wraps_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    # It does so when it is imported, which may be during a load; the wrapper has the module of what it wraps.
    monkeypatch.setattr(torch, "manual_seed", torch.manual_seed)
    disable: Any = vars(torch)["_disable_dynamo"]
    found = loaded(lambda: setattr(torch, "manual_seed", disable(torch.random.manual_seed)))
    assert check_state(found.changes, ()).passed


@pytest.mark.parametrize(
    "cell",
    [
        CELL,
        Cell("llama", "cpu", "bfloat16", strategy="disk-offload"),
        Cell("mixtral", "cpu", "float16", strategy="shared-memory"),
        Cell("t5", "cpu", "bfloat16", "nf4"),
        Cell("gpt2", "cpu", "float16", "int8", "device-map"),
    ],
)
def test_a_plain_load_and_generation_leave_nothing(cell: Cell, checkpoint: Checkpoint) -> None:
    if cell.quantization != "none":
        pytest.importorskip("bitsandbytes")
    found = Loaded.load(BuiltinTarget(), Path(checkpoint(cell.model)), cell)
    generated = generate_traced(BuiltinTarget(), found.model, [[5, 6, 7]], 2)
    result = check_state(found.changes, generated.changes)
    assert result.passed, result.message()


def test_a_plain_load_on_simulated_cards_leaves_nothing(checkpoint: Checkpoint) -> None:
    with simulate("cuda:2"):
        for strategy in ("to", "split", "auto", "cpu-offload"):
            cell = Cell("llama", "cuda:1", "bfloat16", strategy=strategy, simulated=True)
            found = Loaded.load(BuiltinTarget(), Path(checkpoint("llama")), cell)
            generated = generate_traced(BuiltinTarget(), found.model, [[5, 6, 7]], 2)
            result = check_state(found.changes, generated.changes)
            assert result.passed, result.message()


def test_a_model_that_was_handed_over_is_judged_by_its_generation_only() -> None:
    assert Loaded(CELL, nn.Linear(1, 1)).changes is None
    assert check_state(None, ()).passed
    assert check_state(None, None).hollow
