"""`llmdevice init`: a target for the project at hand, and the first run of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from forked_run import run_forked

from pytest_llmdevice.cli.command import command
from pytest_llmdevice.cli.project import loaders_in

TRANSFORMERS = """
from transformers import AutoModelForCausalLM, AutoTokenizer

def load_model(model_path, device="cuda", torch_dtype=None, revision="main"):
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    return AutoModelForCausalLM.from_pretrained(model_path, dtype=torch_dtype).to(device)

def load_tokenizer(name):
    return AutoTokenizer.from_pretrained(name)

def _private(path):
    return AutoModelForCausalLM.from_pretrained(path)

def prints(path):
    AutoModelForCausalLM.from_pretrained(path)
"""

PEFT = """
from peft import PeftModel
from transformers import AutoModelForCausalLM

def with_adapter(base, adapter):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
"""

MAPPED = """
import transformers as tf

def get(name, *, device_map="auto"):
    return tf.AutoModelForCausalLM.from_pretrained(name, device_map=device_map)
"""

OWN = """
from safetensors.torch import load_file

def build(config, weights):
    model = make(config)
    model.load_state_dict(load_file(weights))
    return model
"""

PIPELINE = """
from transformers import pipeline

def ask(question):
    return pipeline("text-generation")(question)
"""


def init(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["init", str(folder), *arguments])


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (TRANSFORMERS, [("load_model", "transformers", (
            "model_path=checkpoint", "device=cell.device", "torch_dtype=cell.torch_dtype"))]),
        (PEFT, [("with_adapter", "peft", None)]),
        (MAPPED, [("get", "transformers", ("name=checkpoint", 'device_map={"": cell.device}'))]),
        (OWN, [("build", "own", None)]),
        (PIPELINE, [("ask", "pipeline", ("question=checkpoint",))]),
        ("def broken(:", []),
        ("x = 1", []),
    ],
    ids=["transformers", "peft", "mapped", "own", "pipeline", "broken", "nothing"],
)  # fmt: skip
def test_what_loads_a_model_is_found_with_what_to_call_it_with(
    source: str, found: list[tuple[str, str, tuple[str, ...] | None]], tmp_path: Path
) -> None:
    write(tmp_path, package__loader=source)
    loaders = loaders_in(tmp_path)
    assert [(each.function, each.kind, each.arguments) for each in loaders] == found
    assert all(each.module == "package.loader" for each in loaders)


def test_tests_environments_and_hidden_folders_are_not_read(tmp_path: Path) -> None:
    for name in ("tests__a", "venv__lib__b", ".hidden__c", "test_d", "conftest", "lib__x-packages__e"):
        write(tmp_path, **{name: TRANSFORMERS})
    write(tmp_path, src__package__f=TRANSFORMERS)
    assert [each.module for each in loaders_in(tmp_path)] == ["package.f"]


def test_a_loader_that_can_be_called_is(tmp_path: Path) -> None:
    write(tmp_path, mine=TRANSFORMERS, adapters=PEFT)
    result = init(tmp_path)
    assert result.exit_code == 0, result.output
    source = (tmp_path / "llm_target.py").read_text()
    assert "from mine import load_model\n" in source
    call = "load_model(model_path=checkpoint, device=cell.device, torch_dtype=cell.torch_dtype)"
    assert call in source
    assert result.output.splitlines() == [
        f"llm_target.py: calls mine.{call}",
        "  also found: adapters.with_adapter",
        "llm-matrix.toml: llama on the cpu in float32 and bfloat16",
        "pyproject.toml: written, with pytest's settings",
        "now: pytest --llm-matrix",
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("transformers", "AutoModelForCausalLM"),
        ("peft", "AutoPeftModelForCausalLM"),
        ("pipeline", "generate_text"),
        ("own", "Unsupported"),
    ],
)
def test_a_kind_that_is_asked_for_is_written(kind: str, words: str, tmp_path: Path) -> None:
    assert init(tmp_path, "--kind", kind).exit_code == 0
    source = (tmp_path / "llm_target.py").read_text()
    compile(source, "llm_target.py", "exec")
    assert words in source
    matrix = tomllib.loads((tmp_path / "llm-matrix.toml").read_text())
    assert matrix["models"] == ["llama+lora" if kind == "peft" else "llama"]


def test_what_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "llm_target.py").write_text("mine")
    refused = init(tmp_path)
    assert refused.exit_code == 2
    assert "llm_target.py is there already; --force replaces it" in refused.output
    assert (tmp_path / "llm_target.py").read_text() == "mine"
    assert init(tmp_path, "--force").exit_code == 0
    assert (tmp_path / "llm_target.py").read_text() != "mine"


@pytest.mark.parametrize(
    ("before", "section"),
    [
        ("", "ini_options"),
        ('[project]\nname = "x"\n', "ini_options"),
        ('[tool.pytest.ini_options]\naddopts = "-q"\n\n[tool.ruff]\n', "ini_options"),
        ('[tool.pytest.ini_options]\npythonpath = [".", "src"]\n', "ini_options"),
        ('[tool.pytest]\naddopts = ["-q"]\n', ""),
    ],
)
def test_the_settings_get_into_pyproject_beside_what_is_there(before: str, section: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(before)
    assert init(tmp_path).exit_code == 0
    after = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    settings = after["tool"]["pytest"]
    settings = settings[section] if section else settings
    assert settings["llm_target"] == "llm_target"
    assert settings["llm_matrix_file"] == "llm-matrix.toml"
    assert "." in settings["pythonpath"]
    for key, value in tomllib.loads(before).get("tool", {}).get("pytest", {}).get("ini_options", {}).items():
        assert settings[key] == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("pytest.ini", "[pytest]\n"), ("tox.ini", "[pytest]\naddopts = -q\n"), ("setup.cfg", "[tool:pytest]\n")],
)
def test_other_files_of_settings_are_left_alone_and_it_is_said_what_to_add(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    result = init(tmp_path)
    assert 'add to pytest\'s configuration: llm_target = "llm_target"' in result.output
    assert (tmp_path / name).read_text() == text
    assert not (tmp_path / "pyproject.toml").exists()


@pytest.mark.parametrize("source", [TRANSFORMERS, ""], ids=["a loader of its own", "an empty project"])
def test_the_first_run_tests_the_project(source: str, pytester: pytest.Pytester) -> None:
    write(pytester.path, mine=source)
    assert init(pytester.path).exit_code == 0
    result = run_forked(pytester.path, "--llm-matrix", "-p", "no:cacheprovider")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["target llm_target", "2 cells: 2 passed"])
