"""From `--llm-target` to the code under test, and what is said when that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.loading.target import CONTRACT, BuiltinTarget, Target, resolve, validate

Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """`write(source)` makes the module `my_loader`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write_module(source: str) -> None:
        (tmp_path / "my_loader.py").write_text(source)

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(name: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve(name)
    return str(caught.value)


def test_a_module_can_be_the_target(write: Write) -> None:
    write("def load(checkpoint, cell): return checkpoint, cell\n")
    assert resolve("my_loader").target is sys.modules["my_loader"]


def test_an_object_can_be_the_target(write: Write) -> None:
    write("class Loader:\n    def load(self, checkpoint, cell): ...\nloader = Loader()\n")
    assert resolve("my_loader:loader").target is sys.modules["my_loader"].loader


def test_a_class_is_instantiated(write: Write) -> None:
    write("class Loader:\n    def load(self, checkpoint, cell): ...\n")
    assert isinstance(resolve("my_loader:Loader").target, sys.modules["my_loader"].Loader)


def test_an_attribute_of_an_attribute_can_be_the_target(write: Write) -> None:
    write("class Outer:\n    class Inner:\n        def load(self, checkpoint, cell): ...\n")
    assert type(resolve("my_loader:Outer.Inner").target).__qualname__ == "Outer.Inner"


def test_the_built_in_target_is_one() -> None:
    builtin = BuiltinTarget()
    validate(builtin, "builtin")
    assert isinstance(builtin, Target)


@pytest.mark.parametrize("name", ["", ":x", "./my_loader.py", "my-loader", "a..b", "a b:c"])
def test_what_is_no_name_of_a_module_is_refused_with_the_form(name: str) -> None:
    assert refusal(name) == f"target {name!r} is not of the form 'package.module' or 'package.module:attribute'"


def test_a_module_that_is_not_there_is_named_with_what_to_do() -> None:
    message = refusal("no_such_module_anywhere:load")
    assert message.startswith("target 'no_such_module_anywhere:load': no module named 'no_such_module_anywhere'; ")
    assert "pythonpath = ." in message


def test_of_a_dotted_name_the_part_that_is_missing_is_named(write: Write) -> None:
    write("")
    assert "no module named 'my_loader.inner'" in refusal("my_loader.inner.loader")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_dependency\n", "No module named 'no_such_dependency'"),
        ("from json import lods\n", "ImportError: cannot import name 'lods' from 'json'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def load(:\n", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit('usage: my_loader FILE')\n", "SystemExit: usage: my_loader FILE"),
    ],
)
def test_a_module_that_fails_to_import_names_the_inner_cause(source: str, cause: str, write: Write) -> None:
    write(source)
    message = refusal("my_loader")
    assert message.startswith("target 'my_loader': its import failed: ")
    assert cause in message


def test_an_attribute_that_is_not_there_is_answered_with_the_nearest_one(write: Write) -> None:
    write("class MyLoader: ...\n")
    assert refusal("my_loader:MyLaoder") == (
        "target 'my_loader:MyLaoder': 'my_loader' has no attribute 'MyLaoder'; did you mean 'MyLoader'?"
    )


def test_a_target_without_load_is_told_what_a_target_is(write: Write) -> None:
    write("def load_model(path): ...\n")
    assert refusal("my_loader") == (
        f"target 'my_loader' has no function 'load'; did you mean to call 'load_model' 'load'? ({CONTRACT})"
    )


def test_a_load_that_cannot_be_called_is_none(write: Write) -> None:
    write("load = 3\n")
    assert refusal("my_loader").startswith("target 'my_loader' has no function 'load'")


def test_a_generate_that_cannot_be_called_is_refused(write: Write) -> None:
    write("def load(checkpoint, cell): ...\ngenerate = None\n")
    assert refusal("my_loader") == f"target 'my_loader': 'generate' is not a function ({CONTRACT})"


def test_a_class_that_wants_arguments_is_refused_with_its_error(write: Write) -> None:
    write("class Loader:\n    def __init__(self, path): ...\n    def load(self, checkpoint, cell): ...\n")
    message = refusal("my_loader:Loader")
    assert message.startswith(
        "target 'my_loader:Loader': the class could not be instantiated without arguments: TypeError: "
    )
    assert "missing 1 required positional argument: 'path'" in message


SETS = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = "1"
os.environ["LLMDEVICE_TEST_OWN"] = "1"
import torch
torch.set_default_dtype(torch.float16)
torch.set_default_device("meta")
def load(checkpoint, cell): ...
"""


def test_what_an_import_changes_for_devices_and_dtypes_is_noted_and_put_back(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("LLMDEVICE_TEST_OWN", "0")
    write(SETS)
    changes = resolve("my_loader").changes
    assert [(change.kind, change.before, change.after) for change in changes] == [
        ("environment", "not set", "'1'"),
        ("device", "cpu", "meta"),
        ("dtype", "float32", "float16"),
    ]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    # Not about devices: the program's own affair.
    assert os.environ["LLMDEVICE_TEST_OWN"] == "1"
    assert (torch.get_default_dtype(), torch.empty(0).device.type) == (torch.float32, "cpu")


def test_a_module_that_sets_nothing_changes_nothing(write: Write) -> None:
    write("def load(checkpoint, cell): ...\n")
    assert resolve("my_loader").changes == ()
