"""The mechanism of the time limit, without pytest around it."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
import torch

from pytest_llmdevice.plugin.watchdog import Watchdog

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGURG"), reason="this system cannot interrupt a call")


class Over(BaseException):
    """Time is up."""


def over(frame: FrameType | None) -> BaseException:
    assert frame is not None
    return Over(frame.f_code.co_name)


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog()
    yield made
    made.close()


def start(watchdog: Watchdog, seconds: float) -> None:
    watchdog.start(seconds, over, lambda _: "over")


def test_the_frame_that_runs_is_interrupted(watchdog: Watchdog) -> None:
    def nap() -> None:
        time.sleep(30)

    start(watchdog, 0.2)
    with pytest.raises(Over, match="nap"):
        nap()


def join_a_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(20,), daemon=True)
    thread.start()
    thread.join()


def retry() -> None:
    while True:
        with suppress(Exception):
            time.sleep(30)


def compute() -> None:
    matrix = torch.randn(64, 64)
    while True:
        matrix = torch.nn.functional.normalize(matrix @ matrix)


@pytest.mark.parametrize("hang", [join_a_thread, retry, compute])
def test_whatever_hangs_is_interrupted(watchdog: Watchdog, hang: Callable[[], None]) -> None:
    start(watchdog, 0.2)
    with pytest.raises(Over):
        hang()


def test_within_the_limit_nothing_happens_and_signals_are_as_before(watchdog: Watchdog) -> None:
    before = signal.getsignal(signal.SIGURG)
    start(watchdog, 0.3)
    watchdog.stop()
    assert signal.getsignal(signal.SIGURG) == before
    time.sleep(0.6)


def test_the_timer_and_the_alarm_of_others_are_left_alone(watchdog: Watchdog) -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        start(watchdog, 0.6)
        with pytest.raises(Over):
            time.sleep(30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung == [signal.SIGALRM]


def test_a_signal_for_somebody_else_is_handed_on(watchdog: Watchdog) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, _frame: seen.append(number))
    try:
        start(watchdog, 60)
        signal.raise_signal(signal.SIGURG)
        assert seen == [signal.SIGURG]
        watchdog.stop()
        signal.raise_signal(signal.SIGURG)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGURG, before)


def test_what_is_being_set_up_or_put_back_is_not_interrupted(watchdog: Watchdog) -> None:
    done: list[str] = []

    class Careful:
        def __enter__(self) -> None:
            for _ in range(8):
                time.sleep(0.05)
            done.append("entered")

        def __exit__(self, *_: object) -> None:
            done.append("left")

    start(watchdog, 0.1)
    with pytest.raises(Over), Careful():
        time.sleep(30)
    assert done == ["entered", "left"]


def test_an_import_is_not_interrupted(watchdog: Watchdog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text("import time\nfor _ in range(8):\n    time.sleep(0.05)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def load() -> None:
        importlib.import_module("slow_module")
        time.sleep(30)

    start(watchdog, 0.1)
    with pytest.raises(Over, match="load"):
        load()
    assert sys.modules.pop("slow_module").whole


def test_an_import_that_does_not_end_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_module.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    watchdog = Watchdog(grace=1.0)
    try:
        start(watchdog, 0.1)
        with pytest.raises(Over):
            importlib.import_module("endless_module")
    finally:
        watchdog.close()
    assert "endless_module" not in sys.modules


def test_another_thread_has_no_limit(watchdog: Watchdog) -> None:
    thread = threading.Thread(target=start, args=(watchdog, 0.1))
    thread.start()
    thread.join()
    assert not watchdog.running


ENDED = """
import sys, time
from pytest_llmdevice.plugin import watchdog as timelimit
timelimit._MARGIN = 1.0
watchdog = timelimit.Watchdog(2, grace=1.0)
watchdog.start(0.5, lambda frame: KeyError("over"), lambda frame: f"it was in {frame.f_code.co_name}")
def stubborn():
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
def greedy():
    sum(range(10**12))  # keeps every other thread from running
"""


@pytest.mark.parametrize(
    ("name", "lines"),
    [("stubborn", ["it was in stubborn", "All threads:"]), ("greedy", ["Timeout (0:00:02.500000)!"])],
)
def test_what_does_not_let_itself_be_interrupted_ends_with_the_process(name: str, lines: list[str]) -> None:
    command = [sys.executable, "-c", f"{ENDED}\n{name}()"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line in lines] == lines
    assert f"in {name}" in result.stderr
