"""Plain loads of architectures whose configuration or positions are unlike those of the zoo's families."""

from __future__ import annotations

import pytest

from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.reference import Reference
from pytest_llmdevice.zoo.architectures import checkpoint_of

STRUCTURE = ("loads", "meta", "placement", "dtypes", "values", "tied", "mode", "forward")

UNLIKE = {
    "gemma3": "the text part's numbers are in a configuration inside",
    "got_ocr2": "so they are here, beside those of a part that reads pictures",
    "mllama": "the model has the configuration of the text part, the checkpoint that of the whole",
    "voxtral": "registered with the encoder-decoders only",
    "roberta": "positions begin behind the padding token's id",
    "whisper": "the decoder by itself, with a table of positions by another name",
}


def examined(name: str, dtype: str = "float32") -> Examination:
    checkpoint = checkpoint_of(name)
    cell = Cell(f"path:{name}", "cpu", dtype)
    loaded = Loaded.load(BuiltinTarget(), checkpoint, cell)
    assert loaded.model is not None, loaded.cause
    prompts = encode(load_tokenizer(checkpoint))
    return Examination(BuiltinTarget(), str(checkpoint), cell, loaded, prompts, Reference((), (), ()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", UNLIKE)
def test_a_plain_load_of_any_architecture_is_what_its_checkpoint_says(name: str, dtype: str) -> None:
    exam = examined(name, dtype)
    failed = {check: exam.check(check).findings for check in STRUCTURE if not exam.check(check).passed}
    assert failed == {}


def test_rows_of_roberta_say_padded_what_they_say_alone_up_to_its_last_position() -> None:
    exam = examined("roberta")
    for name in ("padding", "prefix"):
        result = exam.check(name)
        assert result.findings == (), name
    # 512 positions, of which 257 are before the first token's.
    assert exam.check("prefix").evidence["longest text"] == 255
