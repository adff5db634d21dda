"""Runs cases on PyTorch's CUDA build over the stand-in, each in its own process, and tells what can be believed."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmdevice.monitoring.forks import fork

from ..declare import Case, Outcome, Raises
from ..observe import observe
from ..table import outcome_from_json, outcome_to_json

LONGEST: Final = 60
"""Seconds of a case."""

PROCESSOR: Final = 10
"""Seconds of processor time of a case: a loop over what happens to be in a card's memory may have no end."""


@dataclass(frozen=True, slots=True)
class Executed:
    """What a case did over the stand-in.

    Attributes:
        outcome: what was seen; None where the process came to its end.
        launches: how many kernels would have run.
        reads: how often bytes came from a card to the host.
        died: how the process ended, where it did: `"SIGSEGV"`.
    """

    outcome: Outcome | None
    launches: int = 0
    reads: int = 0
    died: str = ""


def loaded() -> bool:
    """Whether this process runs over the stand-in."""
    return hasattr(ctypes.CDLL(None), "standin_launches")


def reads() -> int:
    """How often bytes came from a card to the host in this process; 0 where it does not run over the stand-in."""
    count = getattr(ctypes.CDLL(None), "standin_reads", None)
    return int(count()) if count is not None else 0


def executed(cases: Iterable[Case]) -> Iterator[tuple[Case, Executed]]:
    """Run each case in a child of this process, which must not have used a card yet.

    Raises:
        RuntimeError: this process does not run over the stand-in, or has used a card.
    """
    import torch

    if not loaded():
        raise RuntimeError("this process was not started with the stand-in in front of the CUDA runtime")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("a card was used before: a child cannot use it again")
    for case in cases:
        yield case, _in_child(case)


def _in_child(case: Case) -> Executed:
    data, died = in_child(lambda: _seen(case))
    if data is None:
        return Executed(None, died=died)
    return Executed(outcome_from_json(data["outcome"]), data["launches"], data["reads"])


def in_child(
    work: Callable[[], dict[str, Any]], longest: int = LONGEST, processor: int = PROCESSOR
) -> tuple[dict[str, Any] | None, str]:
    """What `work` gives in a child of this process, or None and how the child ended: `"SIGSEGV"`.

    Args:
        work: gives what JSON can hold.
        longest: seconds after which the child is ended.
        processor: seconds of processor time after which it is.
    """
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            signal.alarm(longest)
            resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
            _forgiven()
            # What a crash has to say is of no use here.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            text = json.dumps(work())
            with os.fdopen(writer, "w") as out:
                out.write(text)
            status = 0
        finally:
            # Whatever it is, it must not go on as a second parent.
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    status = os.waitpid(child, 0)[1]
    if text:
        return json.loads(text), ""
    return None, signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(
        status
    ) else f"status {os.waitstatus_to_exitcode(status)}"


def _forgiven() -> None:
    """Let a child use the cards though its parent has counted them: the stand-in does not mind."""
    import torch

    torch.cuda._is_in_bad_fork = lambda: False


def _seen(case: Case) -> dict[str, Any]:
    runtime = ctypes.CDLL(None)
    counts = {"launches": runtime.standin_launches, "reads": runtime.standin_reads}
    for count in counts.values():
        count.restype = ctypes.c_long
    outcome = observe(case).outcome
    return {"outcome": outcome_to_json(outcome), **{name: count() for name, count in counts.items()}}


NVIDIA: Final = re.compile(
    r"cuDNN|CUDNN|cusolver|CUSOLVER|cusparse|CUSPARSE|cuFFT|CUFFT|MAGMA|magma|nvrtc|NVRTC|CUBLAS_STATUS|triton|cutlass"
)
"""A library of NVIDIA's that is not there to be called."""

PLACES: Final = re.compile(r"same device|on (cpu|cuda)|is_cuda|is_cpu|CUDA|DeviceType|device type|FloatTensor")
"""A refusal by where operands are, which depends on no value."""


def unseen(first: Executed, second: Executed) -> str | None:
    """Why two runs of a case, over memory with other bytes in it, do not say what a card does; None where they do."""
    if first.died or second.died:
        how = first.died or second.died
        return "code of the processor reads a card's memory" if how == "SIGSEGV" else f"the process ended: {how}"
    if first.outcome != second.outcome:
        return "depends on values"
    outcome = first.outcome
    if isinstance(outcome, Raises):
        if NVIDIA.search(outcome.text):
            return "a library of NVIDIA's"
        if first.reads and not PLACES.search(outcome.text):
            return "may depend on values"
    elif outcome is not None and first.reads and any(leaf.startswith("=") for leaf in outcome.leaves):
        return "depends on values"
    return None
