"""Names of models: architectures of transformers as a matrix spells them, traits behind them, and slips of the pen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.model_names import ModelName, architectures, parts_of, problem_of, spelled
from pytest_llmdevice.zoo import checkpoint
from pytest_llmdevice.zoo.architectures import architectures as made
from pytest_llmdevice.zoo.fits import refuse_unfit
from pytest_llmdevice.zoo.resolve import refuse_impossible


def matrix_of(folder: Path, *models: str) -> tuple[str, ...]:
    names = ", ".join(f'"{model}"' for model in models)
    (folder / "one.toml").write_text(f'models = [{names}]\ndevices = "cpu"\ndtypes = "float32"\n')
    return load("one.toml", folder).models


def test_the_names_read_off_the_source_are_those_of_the_library() -> None:
    assert set(architectures()) == {name.replace("_", "-") for name in made()}


def test_names_are_known_without_an_import_of_torch() -> None:
    code = (
        "import sys; from pytest_llmdevice.matrix.model_names import architectures as a; "
        "assert 'gpt-oss' in a(); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["gpt-oss", "qwen3-next", "glm4-moe", "deepseek-v4", "gemma4", "jamba", "lfm2"])
def test_a_matrix_takes_any_architecture(name: str, tmp_path: Path) -> None:
    assert matrix_of(tmp_path, name) == (name,)


def test_underscores_are_the_same_name(tmp_path: Path) -> None:
    assert matrix_of(tmp_path, "gpt_oss~right", "qwen3_moe") == ("gpt-oss~right", "qwen3-moe")
    with pytest.raises(ConfigurationError, match="given more than once: 'gpt-oss'"):
        matrix_of(tmp_path, "gpt_oss", "gpt-oss")


def test_all_is_every_architecture_and_a_star_the_families(tmp_path: Path) -> None:
    assert matrix_of(tmp_path, "all") == architectures()
    assert len(matrix_of(tmp_path, "*")) < 20


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt-os", "did you mean 'gpt-oss'"),
        ("lama~right", "did you mean 'llama'"),
        ("llama~rihgt", "unknown trait 'rihgt'; did you mean 'right'"),
        ("llama~right~right", "has a trait twice"),
        ("llama~", "unknown trait ''"),
        ("llama+", "unknown adapter ''"),
        ("llama+lore", "unknown adapter 'lore'; did you mean 'lora'"),
        ("hub-config:", "unknown model 'hub-config:'"),
    ],
)
def test_a_slip_of_the_pen_is_said_with_the_nearest_name(name: str, says: str, tmp_path: Path) -> None:
    assert says in str(problem_of(name))
    with pytest.raises(ConfigurationError, match="models: ") as raised:
        matrix_of(tmp_path, name)
    assert says in str(raised.value)


def test_a_name_is_taken_apart() -> None:
    assert parts_of("llama~no-pad~right+one") == ModelName("llama", ("no-pad", "right"), "one")
    assert parts_of("path:~/a+b") == ModelName("path:~/a+b")
    assert spelled("gpt_oss~right") == "gpt-oss~right"
    assert spelled("path:gpt_oss") == "path:gpt_oss"


def test_traits_are_in_the_id_of_a_cell() -> None:
    assert Cell("llama~no-pad~right", "cpu", "float32").id == "llama~no-pad~right.cpu.fp32.none.to"
    assert Cell("hub-config:a/b~right", "cpu", "float32").id == "hub-config-a-b~right.cpu.fp32.none.to"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt2~rope-yarn", "gpt2 cannot have the trait 'rope-yarn', for models with rotary positions: it has no"),
        ("t5~no-pad", "its decoder starts with the padding token"),
        ("llama~short-window", "it has no sliding window"),
        ("llama~stored-twice", "its embeddings are not tied"),
        ("mixtral~bias-correction", "its routers have no correction bias"),
        ("blt", "no checkpoint of blt can be built"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_runs(name: str, says: str) -> None:
    for look in (refuse_unfit, lambda model: refuse_impossible([model])):
        with pytest.raises(ConfigurationError) as raised:
            look(name)
        assert says in str(raised.value)


def test_an_architecture_is_built_by_its_name(zoo_cache: Path) -> None:
    folder = checkpoint("mamba2", cache=zoo_cache)
    assert '"model_type": "mamba2"' in (folder / "config.json").read_text()
    assert checkpoint("mamba2~right", cache=zoo_cache) != folder
