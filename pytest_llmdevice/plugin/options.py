"""Reads flags and ini keys into the frozen `Settings`: the only reader of pytest's configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware.probe import PROBE_TIMEOUT_SECONDS
from pytest_llmdevice.plugin.flags import CELL_TIMEOUT_SECONDS
from pytest_llmdevice.text import harmless

DEFAULT_MATRIX: Final = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for.

    Attributes:
        active: whether `--llm-matrix` was given; without it the plugin does nothing.
        matrix: name of a shipped matrix, or a path.
        base: the folder that a relative path of a matrix is relative to.
        here: the folder that pytest was called in.
        cells: the expressions of `--llm-cell`, any of which may fit.
        require: devices that must be here.
        simulate: machines to simulate where their devices are absent, such as `"cuda:2,memory=16GiB"`.
        target: `module:attribute`, or None for the built-in loader.
        probe_timeout: seconds that the hardware probe may take.
        cell_timeout: seconds that all tests of a cell may take together, its load included; 0 for no limit.
        isolate: what has a process of its own: `"cell"`, `"device"`, or `"none"`.
        results: the folder that records are written into; None for none.
        reports: what to write at the end, each `FORMAT:PATH`.
        grid: the axes of the grid, `ROWS/COLUMNS`; empty for the usual ones.
        baseline: the file to hold the results against; None for none.
        baseline_update: whether to write it instead.
        baseline_force: what an update may overlook.
        fail_on: the differences from the baseline that fail the run; empty for the usual ones.
        shard: `K/N`, the part of the cells that is run; empty for all of them.
    """

    active: bool
    matrix: str = DEFAULT_MATRIX
    base: Path = Path()
    here: Path = Path()
    cells: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()
    target: str | None = None
    probe_timeout: float = PROBE_TIMEOUT_SECONDS
    cell_timeout: float = CELL_TIMEOUT_SECONDS
    isolate: str = "none"
    results: Path | None = None
    reports: tuple[str, ...] = ()
    grid: str = ""
    baseline: Path | None = None
    baseline_update: bool = False
    baseline_force: tuple[str, ...] = ()
    fail_on: str = ""
    shard: str = ""

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read the command line, then the ini file. A path on the command line is relative to where pytest was
        called, one in the ini file to the root directory.

        Raises:
            pytest.UsageError: `--llm-probe-timeout` or `--llm-cell-timeout` is no number of seconds, `--llm-isolate`
                cannot be had, or an option that only means something with `--llm-matrix` is given without it.
        """
        if not config.getoption("llm_matrix"):
            orphans = [flag for flag, key in _NEEDS_MATRIX.items() if config.getoption(key) is not None]
            if orphans:
                raise pytest.UsageError(f"{', '.join(orphans)}: add --llm-matrix, without it no matrix is run")
            return cls(active=False)
        flag_matrix = config.getoption("llm_matrix_file")
        return cls(
            active=True,
            matrix=flag_matrix or config.getini("llm_matrix_file") or DEFAULT_MATRIX,
            base=config.invocation_params.dir if flag_matrix else config.rootpath,
            here=config.invocation_params.dir,
            cells=tuple(config.getoption("llm_cell") or ()),
            require=tuple(config.getoption("llm_require") or config.getini("llm_require")),
            # What `addopts` has too is one machine, and not two of one kind.
            simulate=tuple(dict.fromkeys(config.getoption("llm_simulate") or config.getini("llm_simulate"))),
            target=target_name(config),
            probe_timeout=_seconds(config, "--llm-probe-timeout"),
            cell_timeout=_seconds(config, "--llm-cell-timeout", or_none=True),
            isolate=_isolate(config),
            results=_path(config, "llm_results"),
            reports=tuple(config.getoption("llm_report") or config.getini("llm_report")),
            grid=config.getoption("llm_grid") or config.getini("llm_grid"),
            baseline=_path(config, "llm_baseline"),
            baseline_update=bool(config.getoption("llm_baseline_update")),
            baseline_force=tuple(config.getoption("llm_baseline_force") or ()),
            fail_on=config.getoption("llm_fail_on") or config.getini("llm_fail_on"),
            shard=config.getoption("llm_shard") or "",
        )


_NEEDS_MATRIX = {
    "--llm-matrix-file": "llm_matrix_file",
    "--llm-cell": "llm_cell",
    "--llm-require": "llm_require",
    "--llm-simulate": "llm_simulate",
    "--llm-cell-timeout": "llm_cell_timeout",
    "--llm-isolate": "llm_isolate",
    "--llm-results": "llm_results",
    "--llm-report": "llm_report",
    "--llm-grid": "llm_grid",
    "--llm-baseline": "llm_baseline",
    "--llm-baseline-update": "llm_baseline_update",
    "--llm-baseline-force": "llm_baseline_force",
    "--llm-fail-on": "llm_fail_on",
    "--llm-shard": "llm_shard",
}


def _path(config: pytest.Config, key: str) -> Path | None:
    """A path of the command line from where pytest was called, else one of the ini file from the root directory.

    As short as it can be said here: messages have it.
    """
    given: str = config.getoption(key) or ""
    kept: str = config.getini(key)
    path = config.invocation_params.dir / given if given else config.rootpath / kept
    if not (given or kept):
        return None
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _seconds(config: pytest.Config, flag: str, *, or_none: bool = False) -> float:
    """The value of `flag`, else of its ini key; with `or_none`, 0 stands for no limit."""
    key = flag.removeprefix("--").replace("-", "_")
    given = config.getoption(key)
    text: str = config.getini(key) if given is None else given
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (0 < seconds < math.inf or (or_none and seconds == 0)):
        alternative = ", or 0 for no limit" if or_none else ""
        raise pytest.UsageError(f"{flag} {text!r} is not a positive number of seconds{alternative}")
    return seconds


ISOLATED: Final = ("cell", "device", "none")
"""What `--llm-isolate` can be."""


def _isolate(config: pytest.Config) -> str:
    given = config.getoption("llm_isolate")
    value: str = config.getini("llm_isolate") if given is None else given
    if value not in ISOLATED:
        raise pytest.UsageError(f"--llm-isolate {value!r}: known are {', '.join(ISOLATED)}")
    if value == "none":
        return value
    if not hasattr(os, "fork"):
        raise pytest.UsageError(f"--llm-isolate {value}: this system cannot fork a process; use pytest -n 1")
    for flag in ("usepdb", "trace"):
        if config.getoption(flag, False):
            name = "--pdb" if flag == "usepdb" else "--trace"
            raise pytest.UsageError(
                f"--llm-isolate {value}: {name} needs the process of the terminal; add --llm-isolate none"
            )
    return value


@contextmanager
def usage_errors() -> Iterator[None]:
    """What the user got wrong becomes pytest's own kind of error: one message, exit code 4, no traceback."""
    try:
        yield
    except ConfigurationError as error:
        raise pytest.UsageError(harmless(str(error), lines=True)) from None


def target_name(config: pytest.Config) -> str | None:
    """What `--llm-target` or its ini key names; it holds without a matrix too."""
    name: str | None = config.getoption("llm_target") or config.getini("llm_target") or None
    return name
