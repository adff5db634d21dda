"""What a load said stands in the failures of its cell, wherever the cell runs, and nothing is taken from others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.plugin import load_log
from pytest_llmdevice.plugin.brevity import _told
from pytest_llmdevice.plugin.load_log import LOOKED_AT, MOST_LINES, SECTION, LoadLog, _text

RunProcess = Callable[..., pytest.RunResult]

TARGET = """
import logging, os, sys, warnings
from pytest_llmdevice import BuiltinTarget

class Talking(BuiltinTarget):
    def load(self, checkpoint, cell):
        print("printed: device is 0 by default")
        print("token=abcdefgh12345678 and \\x1b[31mred\\x1b[0m and \\x07", file=sys.stderr)
        os.write(2, b"said in C\\n")
        logging.getLogger("langchain").warning("device has not been given, taking card 0")
        warnings.warn("the argument device is ignored", UserWarning)
        return super().load(checkpoint, cell)
"""

TESTS = """
def test_first(llm_model):
    pass

def test_second(llm_model):
    assert not "wrong"

def test_third(llm_model):
    assert not "wrong too"
"""

SAID = (
    "warnings: UserWarning: the argument device is ignored",
    "stdout: printed: device is 0 by default",
    "stderr: said in C",
    "*device has not been given, taking card 0",
)


@pytest.fixture
def talking(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makefile(".toml", one='models = "llama"\ndevices = "cpu"\ndtypes = "float32"\n')
    pytester.makepyfile(talks=TARGET, test_cells=TESTS)
    pytester.makeini("[pytest]\npythonpath = .\n")
    return pytester


def asked(*more: str) -> tuple[str, ...]:
    return "--llm-matrix", "--llm-matrix-file=one.toml", "--llm-target=talks:Talking", *more, "test_cells.py"


@pytest.mark.parametrize("way", [(), ("-n", "1"), ("--llm-isolate", "cell")], ids=["one process", "xdist", "isolated"])
def test_the_log_of_a_load_that_passed_stands_in_the_failures_of_its_cell(
    way: tuple[str, ...], talking: pytest.Pytester, run_process: RunProcess
) -> None:
    result = run_process(*asked(*way))
    result.assert_outcomes(passed=1, failed=2, warnings=1)
    text = result.stdout.str()
    assert text.count(f" {SECTION} ") == 2
    for line in SAID:
        result.stdout.fnmatch_lines([line])
    assert "abcdefgh12345678" not in text
    assert "\x07" not in text
    assert "stderr: token=*** and red and \\x07" in text


def test_what_is_printed_live_is_not_repeated(talking: pytest.Pytester, run_process: RunProcess) -> None:
    result = run_process(*asked("-s"))
    result.assert_outcomes(passed=1, failed=2, warnings=1)
    text = result.stdout.str()
    assert text.count("printed: device is 0 by default") == 1
    assert text.count("warnings: UserWarning: the argument device is ignored") == 2


def test_a_load_that_fails_shows_its_log_once(talking: pytest.Pytester, run_process: RunProcess) -> None:
    talking.makepyfile(talks=TARGET.replace("return super().load(checkpoint, cell)", "raise OSError('gone')"))
    result = run_process(*asked())
    result.assert_outcomes(errors=3, warnings=1)
    assert result.stdout.str().count("printed: device is 0 by default") == 1
    result.stdout.fnmatch_lines([SAID[0]])


def test_a_warning_that_is_an_error_still_is_one(talking: pytest.Pytester, run_process: RunProcess) -> None:
    result = run_process(*asked("-W", "error::UserWarning"))
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*UserWarning: the argument device is ignored*"])


def test_a_log_is_bounded_and_says_nothing_twice() -> None:
    bars = "Loading: 10%|#  |\rLoading: 100%|###| 21/21\n"
    printed = "".join(f"line {number}\n" for number in range(100))
    log = LoadLog(
        [],
        "test_one",
        [("Captured stdout setup", printed), ("Captured stderr setup", f"{bars}taking card 0\n"),
         ("Captured log setup", "WARNING  langchain:loader.py:7 taking card 0\n")],
    )  # fmt: skip
    lines = log.told.splitlines()
    assert len(lines) == MOST_LINES + 1
    assert lines[0] == "... 71 lines before"
    assert lines[-2:] == ["stdout: line 99", "stderr: taking card 0"]
    assert _text([("stderr", bars)]) == ""


def test_what_was_written_over_is_not_told_and_a_line_that_ends_in_two_characters_is() -> None:
    log = LoadLog([], "test_one", [("Captured stderr setup", "Fetching 10 MB\rFetched\r\nnext\r\n")])
    assert log.told.splitlines() == ["stderr: Fetched", "stderr: next"]
    (section,) = _told([("Captured stdout call", "50%\rloaded 3 shards\n\nready\r\n"), ("bar", "\r 10%|#  |\r")])
    assert section == ("Captured stdout call", "loaded 3 shards\n\nready\n")


def test_of_a_load_that_prints_without_end_the_last_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def known(line: str, _: object) -> bool:
        compared.append(line)
        return False

    monkeypatch.setattr(load_log, "_is_known", known)
    printed = "".join(f"line {number} of many\n" for number in range(20_000))
    log = LoadLog([], "test_one", [("Captured stdout setup", printed), ("Captured stderr setup", printed)])
    lines = log.told.splitlines()
    assert lines[0] == f"... {40_000 - MOST_LINES:,} lines before"
    assert lines[-1] == "stderr: line 19999 of many"
    assert log.told
    assert len(compared) == 2 * LOOKED_AT
