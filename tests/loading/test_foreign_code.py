"""Checkpoints that name code: the plugin's own loads run none of it, whoever answers yes on the terminal."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pytest_llmdevice
from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.hardware.inventory import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.inference.prompts import load_tokenizer
from pytest_llmdevice.loading.pretrained import configuration, from_pretrained, skeleton
from pytest_llmdevice.loading.strategies import STRATEGIES
from pytest_llmdevice.matrix.cell import Cell

CELL = Cell("path:here", "cpu", "float32")
CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): pass
class Tokenizer(PreTrainedTokenizerFast): pass
def generate(model, **options): raise AssertionError
"""
AUTO_MAP = {
    "AutoConfig": "code.Config",
    "AutoModel": "code.Model",
    "AutoModelForCausalLM": "code.Model",
    "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"],
}


@pytest.fixture
def hostile(checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code for each part of it, and somebody at the terminal who says yes to everything."""
    folder = tmp_path / "hostile"
    shutil.copytree(checkpoint("llama"), folder)
    code = CODE.format(mark=str(tmp_path / "mark"))
    for path in ("code.py", "custom_generate/generate.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(code)
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 1000))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    data = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(data | values), "utf-8")


def loads(machine: Inventory) -> list[Callable[[str], Any]]:
    """Every way in which the plugin itself loads on the CPU of `machine`, with the libraries there."""
    found: list[Callable[[str], Any]] = [configuration, load_tokenizer]
    found += [lambda folder: skeleton(folder, CELL), lambda folder: from_pretrained(folder, CELL)]
    for strategy in STRATEGIES:
        if strategy.name not in {"split", "cpu-offload"}:
            cell = Cell("path:here", "cpu", "float32", "none", strategy.name)
            if unsupported(cell, machine):
                continue
            found.append(lambda folder, load=strategy.load, cell=cell: load(folder, cell))  # type: ignore[misc]
    return found


def attempted(folder: Path, machine: Inventory) -> int:
    """Load `folder` in all these ways, and have it generate; return how many did. A refusal is fine."""
    done = 0
    for load in loads(machine):
        try:
            made = load(str(folder))
        except (ValueError, OSError, ImportError, UnsupportedByLibrary):
            continue
        done += 1
        if isinstance(made, torch.nn.Module) and not any(weight.is_meta for weight in made.parameters()):
            with torch.no_grad():
                made.generate(input_ids=torch.tensor([[1, 2, 3]]), max_new_tokens=2)  # type: ignore[operator]
    return done


def test_all_of_these_loads_do_load_what_names_no_code(hostile: Path, inventory: Inventory) -> None:
    assert attempted(hostile, inventory) == len(loads(inventory))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"auto_map": AUTO_MAP}),
        ("config.json", {"auto_map": AUTO_MAP, "model_type": "of-its-own"}),
        ("config.json", {"auto_map": {key: f"org/name--{value}" for key, value in AUTO_MAP.items()}}),
        ("tokenizer_config.json", {"auto_map": AUTO_MAP}),
        ("tokenizer_config.json", {"auto_map": AUTO_MAP, "tokenizer_class": "Tokenizer"}),
        ("generation_config.json", {"custom_generate": "org/name", "auto_map": AUTO_MAP}),
        ("generation_config.json", {"custom_generate": ".", "trust_remote_code": True}),
        ("config.json", {"custom_generate": ".", "trust_remote_code": True, "auto_map": AUTO_MAP}),
    ],
    ids=str,
)
def test_code_in_a_checkpoint_is_never_run(
    hostile: Path, inventory: Inventory, tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    change(hostile, name, **values)
    attempted(hostile, inventory)
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were fetched, on a machine that has the package `kernels`."""
    from transformers.integrations import hub_kernels

    names: list[str] = []

    def get_kernel(name: str, **_: object) -> object:
        names.append(name)
        raise FileNotFoundError(name)

    monkeypatch.setattr(hub_kernels, "get_kernel_hub", get_kernel, raising=False)
    monkeypatch.setattr(hub_kernels, "_kernels_enabled", True, raising=False)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("transformers") and "is_kernels_available" in vars(module):
            monkeypatch.setattr(module, "is_kernels_available", lambda *_, **__: True)
    return names


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation": "org/kernel:name"},
        {"_attn_implementation_internal": "org/kernel:name"},
        {"attn_implementation": "flash_attention_2"},
        {"use_kernels": True, "kernel_config": {"RMSNorm": "org/kernel:name"}},
        {"experts_implementation": "sonicmoe"},
        {"experts_implementation": "deepgemm"},
        *({"quantization_config": {"quant_method": kind}} for kind in ("mxfp4", "fp8", "eetq", "metal", "of-its-own")),
    ],
    ids=str,
)
def test_kernels_that_a_configuration_names_are_never_fetched(
    hostile: Path, inventory: Inventory, fetched: list[str], values: dict[str, Any]
) -> None:
    change(hostile, "config.json", **values)
    attempted(hostile, inventory)
    assert not fetched


def test_a_quantization_that_needs_kernels_of_the_hub_is_refused_with_a_sentence(hostile: Path) -> None:
    change(hostile, "config.json", quantization_config={"quant_method": "eetq"})
    with pytest.raises(UnsupportedByLibrary, match="quantization 'eetq', whose kernels are code of the hub"):
        configuration(str(hostile))


def test_flash_attention_that_is_not_installed_is_not_fetched(hostile: Path, fetched: list[str]) -> None:
    with pytest.raises((ImportError, ValueError, RuntimeError)):
        from_pretrained(str(hostile), Cell("path:here", "cpu", "bfloat16", attention="flash_attention_2"))
    assert not fetched


AUTOMATIC = ("AutoConfig", "AutoTokenizer", "auto_class", "AutoModel")
MADE = {"from_pretrained", "from_config"}


def calls() -> list[Any]:
    """Each call in the package by which transformers chooses a class itself."""
    found = []
    for path in sorted(Path(pytest_llmdevice.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MADE:
                holder = ast.unparse(node.func.value)
                if any(name in holder for name in AUTOMATIC):
                    found.append(pytest.param(node, id=f"{path.name}:{node.lineno}"))
    return found


@pytest.mark.parametrize("node", calls())
def test_every_load_by_an_automatic_class_says_that_no_code_is_trusted(node: ast.Call) -> None:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    assert given.get("trust_remote_code") == "False"
