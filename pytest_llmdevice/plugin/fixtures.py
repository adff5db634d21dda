"""Defines the fixtures that tests ask for; each can be overridden in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_llmdevice.errors import first_line
from pytest_llmdevice.matrix.cell import REFERENCE, Cell
from pytest_llmdevice.matrix.ranks import of_rank
from pytest_llmdevice.monitoring.ranks import rank_here
from pytest_llmdevice.text import harmless

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from pytest_llmdevice.loading.load import Loaded
    from pytest_llmdevice.loading.target import Target
    from pytest_llmdevice.plugin.failures import LoadFailed
    from pytest_llmdevice.plugin.session import MatrixRun

RUN: pytest.StashKey[MatrixRun] = pytest.StashKey()
"""Where the run of an active `--llm-matrix` is kept."""

NOT_OF_THE_CELL: Final = frozenset({"llm_checkpoint", "llm_reference"})
"""Fixtures that make what is kept on disk for other cells and runs too: they are made on the real machine, and their
time does not count as the cell's."""


@pytest.fixture(scope="session")
def llm_cell(request: pytest.FixtureRequest) -> Cell:
    """The cell this test runs on.

    With `--llm-matrix` one parameter for each cell of the matrix, else the reference cell: llama, cpu, float32. Where
    several processes load a cell together, its device is in each of them the one of that process.
    """
    return of_rank(getattr(request, "param", REFERENCE), rank_here())


@pytest.fixture(scope="session")
def llm_device(llm_cell: Cell) -> torch.device:
    """The cell's device, always with the index where there can be several."""
    return llm_cell.torch_device


@pytest.fixture(scope="session")
def llm_dtype(llm_cell: Cell) -> torch.dtype:
    """The cell's dtype."""
    return llm_cell.torch_dtype


@pytest.fixture(scope="session")
def llm_target(request: pytest.FixtureRequest) -> Target:
    """The code under test: what `--llm-target` names, else plain transformers.

    Override it to test a loader that needs other fixtures::

        @pytest.fixture(scope="session")
        def llm_target(my_settings):
            return MyLoader(my_settings)
    """
    run = request.config.stash.get(RUN, None)
    if run is not None:
        return run.target
    from pytest_llmdevice.loading.target import BuiltinTarget, resolve
    from pytest_llmdevice.plugin.options import target_name, usage_errors

    name = target_name(request.config)
    with usage_errors():
        return BuiltinTarget() if name is None else resolve(name).target


@pytest.fixture(scope="session")
def llm_checkpoint(llm_cell: Cell) -> Path:
    """The local folder of the cell's model, which `from_pretrained` reads. Skips where it cannot be had."""
    from pytest_llmdevice.errors import CheckpointError, CheckpointUnavailable
    from pytest_llmdevice.zoo import checkpoint

    try:
        return checkpoint(llm_cell.model)
    except CheckpointUnavailable as error:
        from pytest_llmdevice.plugin.failures import CellSkipped

        raise CellSkipped("absent", str(error)) from None
    except CheckpointError as error:
        pytest.fail(harmless(f"{llm_cell.model}: {error}", lines=True), pytrace=False)


@pytest.fixture(scope="session")
def llm_loaded(
    request: pytest.FixtureRequest, llm_cell: Cell, llm_checkpoint: Path, llm_target: Target
) -> Generator[Loaded]:
    """What the target's load yielded: the model, what it changed of the process, and what it took.

    Once for each cell, whatever the number of tests.
    """
    from pytest_llmdevice.checks.refusals import refused
    from pytest_llmdevice.loading.load import Leftovers, Loaded
    from pytest_llmdevice.loading.members import offered
    from pytest_llmdevice.monitoring.warnings import noted_warnings
    from pytest_llmdevice.plugin.failures import CellSkipped
    from pytest_llmdevice.plugin.load_log import keep

    run = request.config.stash.get(RUN, None)
    if reason := offered(llm_target, llm_cell, type(llm_target).__name__):
        raise CellSkipped("not offered", reason)
    with noted_warnings() as warned:
        loaded = Loaded.load(llm_target, llm_checkpoint, llm_cell, Leftovers() if run is None else run.leftovers)
    keep(request.config, llm_cell, warned)
    loaded = refused(loaded, str(llm_checkpoint))
    if loaded.unsupported:
        raise CellSkipped("unsupported", loaded.unsupported)
    if loaded.not_offered:
        raise CellSkipped("not offered", loaded.not_offered)
    if loaded.model is None:
        raise _load_failed(loaded)
    request.config.hook.pytest_llm_cell_loaded(
        config=request.config,
        cell=llm_cell,
        model=loaded.model,
        seconds=loaded.seconds,
        measures=loaded.measures,
    )
    yield loaded
    loaded.release()


@pytest.fixture(scope="session")
def llm_model(llm_loaded: Loaded) -> nn.Module:
    """The model, loaded by the target, once for each cell whatever the number of tests. Do not change it."""
    model: nn.Module = llm_loaded.model
    return model


@pytest.fixture(scope="session")
def llm_tokenizer(llm_cell: Cell, llm_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, padding on the left."""
    from pytest_llmdevice.inference.prompts import load_tokenizer

    try:
        return load_tokenizer(llm_checkpoint)
    except Exception as error:  # noqa: BLE001  # tokenizers fail in as many ways as there are formats
        pytest.fail(harmless(f"{llm_cell.model}: its tokenizer does not load: {first_line(error)}"), pytrace=False)


@pytest.fixture(scope="session")
def llm_prompts(llm_tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Prompts of unequal length as lists of token ids."""
    from pytest_llmdevice.inference.prompts import encode

    return encode(llm_tokenizer)


@pytest.fixture
def llm_inputs(llm_model: Any, llm_prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """`llm_prompts` as a padded batch, `input_ids` and `attention_mask`, on the device of the embedding."""
    from pytest_llmdevice.inference.generation import inputs_for

    return inputs_for(llm_model, llm_prompts)


def _load_failed(loaded: Loaded) -> LoadFailed:
    from pytest_llmdevice.checks.examine import not_loaded
    from pytest_llmdevice.diagnosis.classes import class_of_error
    from pytest_llmdevice.plugin.failures import LoadFailed

    result = not_loaded(loaded)
    failure = class_of_error(loaded.exception, loading=True) if loaded.exception is not None else "loader"
    what = f"{loaded.cell.id}: {loaded.cause}" if loaded.returned else f"{loaded.cell.id} did not load: {loaded.cause}"
    hints = "".join(f"\nhint: {finding.hint}" for finding in result.findings if finding.hint)
    blank = "" if loaded.returned else "\n"
    return LoadFailed(what, f"{hints}\n{blank}{loaded.details}", result, failure)
