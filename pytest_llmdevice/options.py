"""Flags and ini keys, and the frozen `Settings` made of them: the only reader of pytest's configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError

DEFAULT_MATRIX = "default"
PROBE_TIMEOUT_SECONDS = 120.0
CELL_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for.

    Attributes:
        active: whether `--llm-matrix` was given; without it the plugin does nothing.
        matrix: name of a shipped matrix, or a path.
        base: the folder that a relative path is relative to.
        cells: the expressions of `--llm-cell`, any of which may fit.
        require: devices that must be here.
        simulate: machines to pretend where their devices are absent, such as `"cuda:2,memory=16GiB"`.
        target: `module:attribute`, or None for the built-in loader.
        probe_timeout: seconds that the hardware probe may take.
        cell_timeout: seconds that all tests of a cell may take together, its load included; 0 for no limit.
    """

    active: bool
    matrix: str = DEFAULT_MATRIX
    base: Path = Path()
    cells: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()
    target: str | None = None
    probe_timeout: float = PROBE_TIMEOUT_SECONDS
    cell_timeout: float = CELL_TIMEOUT_SECONDS

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read the command line, then the ini file. A path on the command line is relative to where pytest was
        called, one in the ini file to the root directory.

        Raises:
            pytest.UsageError: `--llm-probe-timeout` or `--llm-cell-timeout` is no number of seconds, or an option
                that only means something with `--llm-matrix` is given without it.
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
            cells=tuple(config.getoption("llm_cell") or ()),
            require=tuple(config.getoption("llm_require") or config.getini("llm_require")),
            simulate=tuple(config.getoption("llm_simulate") or config.getini("llm_simulate")),
            target=target_name(config),
            probe_timeout=_seconds(config, "--llm-probe-timeout"),
            cell_timeout=_seconds(config, "--llm-cell-timeout", or_none=True),
        )


_NEEDS_MATRIX = {
    "--llm-matrix-file": "llm_matrix_file",
    "--llm-cell": "llm_cell",
    "--llm-require": "llm_require",
    "--llm-simulate": "llm_simulate",
    "--llm-cell-timeout": "llm_cell_timeout",
}


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


def add_options(parser: pytest.Parser) -> None:
    """Declare the flags, and an ini key beside each one that a project would want to keep."""
    group = parser.getgroup("llm", "hardware matrix for language models")
    # A plain flag: an optional value would swallow the path that follows it.
    group.addoption(
        "--llm-matrix",
        action="store_true",
        default=False,
        dest="llm_matrix",
        help="run LLM tests over the matrix of device x dtype x quantization x load strategy; without paths, the "
        "project's own tests and the ready-made suite",
    )
    group.addoption(
        "--llm-matrix-file",
        metavar="NAME_OR_PATH",
        dest="llm_matrix_file",
        help="a shipped matrix (default, cpu, cuda, multi-gpu, mps, rocm, release, ...) or a TOML file",
    )
    group.addoption(
        "--llm-cell",
        action="append",
        metavar="EXPR",
        dest="llm_cell",
        help="only these cells: 'device=cuda:*,quantization=nf4|int8' or a cell id; can be given again to add cells",
    )
    group.addoption(
        "--llm-require",
        action="append",
        metavar="DEVICE",
        dest="llm_require",
        help="fail at once unless this device is here and works: 'cuda', 'cuda:1', 'mps'; can be given again",
    )
    group.addoption(
        "--llm-simulate",
        action="append",
        metavar="PROFILE[:COUNT][,memory=SIZE]",
        dest="llm_simulate",
        help="run the cells of absent devices on pretended ones, computed by the CPU: 'cuda:2', 'rocm', 'mps', 'xpu', "
        "'cuda-t4,memory=8GiB'; proves placement and dtypes, not the hardware; can be given again",
    )
    group.addoption(
        "--llm-target",
        metavar="MODULE:ATTR",
        dest="llm_target",
        help="the loader to test, an object or a module with load(checkpoint, cell); the built-in one by default",
    )
    group.addoption(
        "--llm-probe-timeout",
        metavar="SECONDS",
        dest="llm_probe_timeout",
        help=f"how long the hardware probe may take (default {PROBE_TIMEOUT_SECONDS:g})",
    )
    group.addoption(
        "--llm-cell-timeout",
        metavar="SECONDS",
        dest="llm_cell_timeout",
        help="how long the load and all tests of a cell may take together; then it fails and the run goes on with the "
        f"next (default {CELL_TIMEOUT_SECONDS:g}, 0 for no limit)",
    )
    parser.addini("llm_matrix_file", "matrix to run with --llm-matrix, a shipped name or a path")
    parser.addini("llm_require", "devices that must be here, one a line", type="linelist", default=[])
    parser.addini("llm_simulate", "machines to pretend, as --llm-simulate, one a line", type="linelist", default=[])
    parser.addini("llm_target", "the loader to test, 'module:attribute'")
    parser.addini("llm_probe_timeout", "seconds the hardware probe may take", default=str(PROBE_TIMEOUT_SECONDS))
    parser.addini("llm_cell_timeout", "seconds a cell may take, 0 for no limit", default=str(CELL_TIMEOUT_SECONDS))


@contextmanager
def usage_errors() -> Iterator[None]:
    """What the user got wrong becomes pytest's own kind of error: one message, exit code 4, no traceback."""
    try:
        yield
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from None


MARKERS = {
    "llm_matrix(models=..., devices=..., dtypes=..., quantization=..., strategies=..., attention=...)": (
        "run the test only on the cells that fit, each value a pattern or a list of patterns"
    ),
    "llm_requires(devices=1, memory=None, capability=None, kinds=(), packages=())": (
        "skip the test where the machine has less, for example memory='8GiB', capability='8.0'"
    ),
    "llm_cell(model, device, dtype, quantization, strategy, attention, kind, simulated)": (
        "set by the plugin on every item of a cell, for -m \"llm_cell(device='cpu')\""
    ),
    "llm_check(name)": "set by the suite, the check that a test makes; [[expect]] refers to it",
}


def add_markers(config: pytest.Config) -> None:
    """Register the markers, so that `--strict-markers` knows them."""
    for signature, purpose in MARKERS.items():
        config.addinivalue_line("markers", f"{signature}: {purpose}")


def target_name(config: pytest.Config) -> str | None:
    """What `--llm-target` or its ini key names; it holds without a matrix too."""
    name: str | None = config.getoption("llm_target") or config.getini("llm_target") or None
    return name
