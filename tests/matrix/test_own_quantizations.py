"""Quantizations that a matrix file describes: what is registered of them, and what is wrong with a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.registry import Registry, built_in

AXES = """
models = ["llama"]
devices = ["cpu", "cuda:0"]
dtypes = ["float32", "bfloat16"]
quantization = ["none", "rows"]
"""
TABLE = """
[[quantizations]]
name = "rows"
layer_class = "RowLinear"
storage_dtype = "int8"
packing_error = 0.02
logits_error = 0.1
"""


pytestmark = pytest.mark.usefixtures("registry")


def written(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(str(written(folder, text)), folder)
    return str(caught.value).partition("own.toml: ")[2]


def test_it_is_an_entry_like_others(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "own_rows.py").write_text("def unpack(module, weight): return module.scale * weight\n")
    said = 'dequantize = "own_rows:unpack"\ndtypes = ["bfloat16"]\nkinds = ["cpu"]\n'
    matrix = load(str(written(tmp_path, AXES + TABLE + said)), tmp_path)
    assert matrix.quantization == ("none", "rows")
    entry = registry.of(Quantization)["rows"]
    assert (entry.form, entry.packing_error, entry.packs) == ("RowLinear with int8", 0.02, True)
    assert entry.dequantize(type("Module", (), {"scale": 2})(), 3) == 6
    assert entry.config(Cell("llama", "cpu", "bfloat16", "rows")) is None
    reasons = [
        unsupported(Cell("llama", device, dtype, "rows"), Inventory())
        for device, dtype in (("cpu", "bfloat16"), ("cpu", "float32"), ("cuda:0", "bfloat16"))
    ]
    assert reasons == [
        None,
        "rows computes in bfloat16, and not in float32",
        "rows is for cpu, and not for cuda",
    ]


def test_read_twice_it_is_registered_once(tmp_path: Path, registry: Registry) -> None:
    path = written(tmp_path, AXES + TABLE)
    assert load(str(path), tmp_path) == load(str(path), tmp_path)
    assert [entry.name for entry in registry.entries("quantization")].count("rows") == 1


def test_another_process_reads_it_from_the_file(tmp_path: Path, registry: Registry) -> None:
    load(str(written(tmp_path, AXES + TABLE)), tmp_path)
    other = built_in()
    other.load_sources(registry.sources("quantization"))
    assert other.of(Quantization)["rows"].form == "RowLinear with int8"


def test_a_file_that_extends_has_those_of_the_other(tmp_path: Path, registry: Registry) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "base_rows.py").write_text("def unpack(module, weight): return 7\n")
    written(folder, AXES + TABLE + 'dequantize = "base_rows:unpack"\n', "base.toml")
    matrix = load(str(written(tmp_path, 'extends = "base/base.toml"\nquantization = ["rows"]\n')), tmp_path)
    assert matrix.quantization == ("rows",)
    # A function is looked for beside the file that names it.
    assert registry.of(Quantization)["rows"].dequantize(None, None) == 7


def test_what_it_is_asked_for_by_is_called_with_its_arguments_or_the_cell(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "asking.py").write_text("def make(cell=None, bits=0): return cell.dtype if cell else bits\n")
    second = TABLE.replace("rows", "bits").replace("RowLinear", "BitLinear")
    text = f'{AXES}{TABLE}config = "asking:make"\n{second}config = "asking:make"\narguments = {{ bits = 4 }}\n'
    load(str(written(tmp_path, text)), tmp_path)
    known = registry.of(Quantization)
    cell = Cell("llama", "cpu", "bfloat16", "rows")
    assert (known["rows"].config(cell), known["bits"].config(cell)) == ("bfloat16", 4)


def test_a_library_that_is_missing_is_said_with_what_to_install(tmp_path: Path) -> None:
    load(str(written(tmp_path, AXES + TABLE + 'library = "rowlib"\ninstall = "rowlib>=2"\n')), tmp_path)
    cell = Cell("llama", "cpu", "bfloat16", "rows")
    assert unsupported(cell, Inventory()) == "rowlib is not installed; pip install 'rowlib>=2'"
    assert unsupported(cell, Inventory(versions={"rowlib": "2.1"})) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.replace('"int8"', '"int9"'), "quantizations[0].storage_dtype: unknown value 'int9'"),
        (TABLE.replace('layer_class = "RowLinear"', ""), "quantizations[0]: known by nothing: give 'layer_class'"),
        (TABLE + "bits = 8\n", "quantizations[0].bits: unknown key 'bits' (valid: name, description, config,"),
        (TABLE.replace("packing_error = 0.02", ""), "quantizations[0].packing_error: missing; each of these tables"),
        (TABLE.replace("0.02", "2.0"), "quantizations[0].packing_error: input should be less than 1"),
        (
            TABLE + 'dequantize = "unpack"\n',
            "quantizations[0].dequantize: 'unpack' names no function; write 'module:function'",
        ),
        (TABLE + 'dequantize = "nowhere_at_all:unpack"\n', "quantizations, 'rows': dequantize: there is no module"),
        (TABLE + 'dtypes = ["bf16"]\n', "quantizations[0].dtypes: unknown dtype 'bf16'"),
        (TABLE + 'kinds = ["gpu"]\n', "quantizations[0].kinds: unknown kind of device 'gpu'"),
        (TABLE + "arguments = { bits = 4 }\n", "quantizations[0]: has 'arguments' and no 'config'"),
        (TABLE + 'library = "rowlib"\n', "quantizations[0]: has a 'library' and no 'install'"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_its_key(table: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, AXES + table).startswith(message)


def test_the_name_of_a_known_quantization_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"quantization 'nf4': field 'name': .* has registered one of this"):
        load(str(written(tmp_path, AXES + TABLE.replace("rows", "nf4"))), tmp_path)


def test_a_function_that_is_not_there_is_said_when_it_is_called(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "half_written.py").write_text("")
    load(str(written(tmp_path, AXES + TABLE + 'dequantize = "half_written:unpack"\n')), tmp_path)
    with pytest.raises(ConfigurationError, match=r"half_written:unpack of the matrix file in .*: there is no such"):
        registry.of(Quantization)["rows"].dequantize(None, None)
