"""A quantization that cannot pack experts says so before anything is loaded, whatever the architecture is called."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice import Cell
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.matrix.expand import load as read
from pytest_llmdevice.matrix.registry import built_in, in_force


class Unasked:
    """A target that nothing must be asked of."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        raise AssertionError(f"{checkpoint} was loaded for {cell.id}")


EXPERTS_TOGETHER = pytest.mark.skipif(
    version("transformers") < "5", reason="transformers 4 has a module for each expert, with linear layers"
)


@EXPERTS_TOGETHER
@pytest.mark.parametrize(
    ("quantization", "why"),
    [
        ("quanto-int8", "optimum-quanto packs linear layers only"),
        ("quanto-int4", "optimum-quanto packs linear layers only"),
        ("torchao-int4", "torchao makes groups in the rows of two dimensions"),
    ],
)
def test_experts_that_cannot_be_packed_are_said(quantization: str, why: str, checkpoint: Callable[[str], str]) -> None:
    # Not by the name of a family, which the rules know.
    folder = Path(checkpoint("olmoe"))
    loaded = Loaded.load(Unasked(), folder, Cell(f"path:{folder}", "cpu", "bfloat16", quantization))
    assert loaded.unsupported == (
        f"transformers 5 keeps the experts of a layer in one 3-D parameter, and {why}; a quantization of [[mixed]] can "
        "leave them dense"
    )


@pytest.mark.parametrize(
    ("model", "quantization"),
    [("olmoe", "torchao-int8"), ("olmoe", "nf4"), ("olmoe", "none"), ("llama", "quanto-int8")],
)
def test_all_else_is_for_the_target(model: str, quantization: str, checkpoint: Callable[[str], str]) -> None:
    loaded = Loaded.load(Unasked(), Path(checkpoint(model)), Cell(model, "cpu", "bfloat16", quantization))
    assert loaded.unsupported == ""
    assert isinstance(loaded.exception, AssertionError)


@EXPERTS_TOGETHER
@pytest.mark.parametrize(("experts", "refused"), [("none", False), ("torchao-int8", False), ("quanto-int4", True)])
def test_a_mix_is_asked_for_the_experts_own(
    experts: str, refused: bool, tmp_path: Path, checkpoint: Callable[[str], str]
) -> None:
    table = f'[[mixed]]\nname = "two"\nmodules = {{ "experts" = "{experts}", "*" = "quanto-int8" }}\n'
    axes = 'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["bfloat16"]\nquantization = ["two"]\n'
    (tmp_path / "mixed.toml").write_text(axes + table, encoding="utf-8")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        loaded = Loaded.load(Unasked(), Path(checkpoint("olmoe")), Cell("olmoe", "cpu", "bfloat16", "two"))
        assert bool(loaded.unsupported) is refused
