"""Declares the flags, ini keys and markers of the plugin; `options` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_llmdevice.hardware.probe import PROBE_TIMEOUT_SECONDS

if TYPE_CHECKING:
    import pytest

CELL_TIMEOUT_SECONDS: Final = 600.0


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
        help="run the cells of absent devices on simulated ones, computed by the CPU: 'cuda:2', 'rocm', 'mps', 'xpu', "
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
    group.addoption(
        "--llm-isolate",
        metavar="WHAT",
        dest="llm_isolate",
        help="run the tests of each 'cell', or of all cells of a 'device', in a process of its own, so that one that "
        "crashes fails alone; 'none' for no such processes (default); needs fork, so not on Windows",
    )
    _add_result_options(group)
    parser.addini("llm_matrix_file", "matrix to run with --llm-matrix, a shipped name or a path")
    parser.addini("llm_require", "devices that must be here, one a line", type="linelist", default=[])
    parser.addini("llm_simulate", "machines to simulate, as --llm-simulate, one a line", type="linelist", default=[])
    parser.addini("llm_target", "the loader to test, 'module:attribute'")
    parser.addini("llm_probe_timeout", "seconds the hardware probe may take", default=str(PROBE_TIMEOUT_SECONDS))
    parser.addini("llm_cell_timeout", "seconds a cell may take, 0 for no limit", default=str(CELL_TIMEOUT_SECONDS))
    parser.addini("llm_isolate", "cell, device or none, as --llm-isolate", default="none")
    parser.addini("llm_results", "folder for the records of runs, as --llm-results")
    parser.addini("llm_report", "reports to write, FORMAT:PATH, one a line", type="linelist", default=[])
    parser.addini("llm_grid", "axes of the grid, as --llm-grid")
    parser.addini("llm_baseline", "baseline to hold the results against, as --llm-baseline")
    parser.addini("llm_fail_on", "differences from the baseline that fail the run, as --llm-fail-on")


def _add_result_options(group: pytest.OptionGroup) -> None:
    group.addoption(
        "--llm-results",
        metavar="DIR",
        dest="llm_results",
        help="write a record of each check and cell into a new file of this folder, as it finishes",
    )
    group.addoption(
        "--llm-report",
        action="append",
        metavar="FORMAT:PATH",
        dest="llm_report",
        help="write a report at the end: 'html:report.html', 'md:summary.md', 'json:report.json'; can be given again",
    )
    group.addoption(
        "--llm-grid",
        metavar="ROWS/COLUMNS",
        dest="llm_grid",
        help="the axes of the grid at the end, for example 'model/device,dtype'",
    )
    group.addoption(
        "--llm-baseline",
        metavar="FILE",
        dest="llm_baseline",
        help="hold the results against this baseline, and fail the run for what --llm-fail-on names",
    )
    group.addoption(
        "--llm-baseline-update",
        action="store_const",
        const=True,
        dest="llm_baseline_update",
        help="write the results into the file of --llm-baseline instead",
    )
    group.addoption(
        "--llm-baseline-force",
        action="append",
        metavar="WHAT",
        dest="llm_baseline_force",
        help="let --llm-baseline-update write what it would refuse: ci, dirty, failing, unstable, vanished, "
        "other-matrix; can be given again",
    )
    group.addoption(
        "--llm-fail-on",
        metavar="WHAT[,WHAT]",
        dest="llm_fail_on",
        help="differences from the baseline that fail the run: 'regression,vanished,skipped,unused,slower:20%%,"
        "memory:10%%'",
    )
    group.addoption(
        "--llm-shard",
        metavar="K/N",
        dest="llm_shard",
        help="run the K-th of N parts of the cells, every cell being in one of them",
    )


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
