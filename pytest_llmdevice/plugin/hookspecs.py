"""Specifies the hooks that projects and plugins can implement; each implementation may leave arguments out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    from torch import nn

    from pytest_llmdevice.checks import Result
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.matrix.registry import Registry
    from pytest_llmdevice.monitoring.resources import Measures


def pytest_llm_register(registry: Registry) -> None:
    """Called once at the start of a run with `--llm-matrix`, to add entries to `registry` by their classes.

    What is added is then known to matrix files, `--llm-cell`, messages and reports, and runs like what is built in::

        from pytest_llmdevice import Check, Finding, Result

        def no_nan(exam):
            bad = [name for name, tensor in exam.model.named_parameters() if tensor.isnan().any()]
            findings = tuple(Finding(name, "numbers", "nan") for name in bad)
            return Result("no_nan", findings, {"parameters": sum(1 for _ in exam.model.parameters())})

        def pytest_llm_register(registry):
            question, meaning = "no parameter holds a nan", "The checkpoint is broken."
            registry.add(Check("no_nan", no_nan, question, meaning, after="loads"))

    Implement it in an installed plugin, or in the `conftest.py` of the root directory or of a folder that was named on
    the command line: those deeper down are read too late, which is an error and not overlooked.
    """


def pytest_llm_cell_loaded(
    config: pytest.Config, cell: Cell, model: nn.Module, seconds: float, measures: Measures
) -> None:
    """Called once for each cell, right after the target loaded it, in the process that runs the cell.

    `measures` has the wall time (`seconds` is the same), the processor time, the memory of the host and of every card
    before, after and at its peak, and a summary of which tensors are where. Log them, for example::

        def pytest_llm_cell_loaded(cell, measures):
            print(f"{cell}: {measures}")
    """


def pytest_llm_check(config: pytest.Config, cell: Cell, result: Result) -> None:
    """Called after each check of the suite, whether it passed or not, in the process that runs the cell.

    Collect what the checks looked at, for example::

        def pytest_llm_check(cell, result):
            print(cell, result.check, "passed" if result.passed else "failed", result.evidence)
    """
