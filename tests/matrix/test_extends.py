"""One matrix file that builds on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.expand import load

PARENT = """
description = "the parent"
models = ["llama", "gpt2"]
devices = ["cpu"]
dtypes = ["float32"]
strategies = ["to", "auto"]
[[exclude]]
models = ["gpt2"]
[[include]]
models = ["opt"]
[[expect]]
xfail = "of the parent"
[require]
models = ["llama"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parent.toml").write_text(PARENT)
    return tmp_path


def refusal(name: str, base: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(name, base)
    return str(caught.value)


def test_keys_that_a_file_lacks_come_from_the_one_it_extends(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = "parent.toml"\n')
    child = load("child.toml", folder)
    assert (child.models, child.devices, child.strategies) == (("llama", "gpt2"), ("cpu",), ("to", "auto"))


def test_a_key_that_a_file_has_replaces_the_inherited_one(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = "parent.toml"\nmodels = ["t5"]\n')
    assert load("child.toml", folder).models == ("t5",)


def test_rules_add_up_with_the_files_own_first(folder: Path) -> None:
    (folder / "child.toml").write_text(
        'extends = "parent.toml"\n[[exclude]]\nstrategies = ["auto"]\n[[expect]]\nxfail = "of the child"\n'
    )
    child = load("child.toml", folder)
    assert [rule.models for rule in child.exclude] == [None, ("gpt2",)]
    assert [rule.models for rule in child.include] == [("opt",)]
    assert [rule.xfail for rule in child.expect] == ["of the child", "of the parent"]


def test_neither_requirements_nor_the_description_are_inherited(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = "parent.toml"\n')
    child = load("child.toml", folder)
    assert (child.require, child.description) == (None, "")


def test_a_grandchild_has_what_its_grandparent_says(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = "parent.toml"\nmodels = ["t5"]\n')
    (folder / "grandchild.toml").write_text('extends = "child.toml"\ndtypes = ["float16"]\n')
    grandchild = load("grandchild.toml", folder)
    assert (grandchild.models, grandchild.devices, grandchild.dtypes) == (("t5",), ("cpu",), ("float16",))


def test_a_path_is_relative_to_the_file_that_extends(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "child.toml").write_text('extends = "../parent.toml"\n')
    assert load("inner/child.toml", folder).models == ("llama", "gpt2")


def test_a_file_may_extend_the_shipped_matrix_of_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "cpu.toml").write_text('extends = "cpu"\nmodels = ["llama"]\n')
    mine = load("./cpu.toml", tmp_path)
    assert (mine.models, mine.devices, mine.coverage) == (("llama",), ("cpu",), "full")


def test_a_mistake_in_the_extended_file_is_told_of_that_file(folder: Path) -> None:
    (folder / "parent.toml").write_text(PARENT.replace("gpt2", "gtp2"))
    (folder / "child.toml").write_text('extends = "parent.toml"\n')
    message = refusal("child.toml", folder)
    assert message.startswith(
        f"matrix {folder / 'parent.toml'}: \n  models: unknown model 'gtp2'; did you mean 'gpt2'?"
    )


def test_an_extended_file_that_is_not_there_is_told_of_the_file_that_extends(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = "defualt"\n')
    message = refusal("child.toml", folder)
    assert message.startswith(f"matrix {folder / 'child.toml'}: extends: unknown matrix 'defualt': ")
    assert "did you mean 'default'?" in message


def test_an_empty_name_is_told_of_the_file_that_extends(folder: Path) -> None:
    (folder / "child.toml").write_text('extends = ""\n')
    assert refusal("child.toml", folder).startswith(f"matrix {folder / 'child.toml'}: extends: ")


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "a.toml"\n')
    path = tmp_path / "a.toml"
    assert refusal("a.toml", tmp_path) == f"matrix {path}: extends: goes round in a circle: {path} -> {path}"


@pytest.mark.parametrize("way_back", ["a.toml", "./a.toml", "../inner/a.toml"])
def test_a_circle_is_refused_however_it_is_spelled(way_back: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.toml").write_text('extends = "b.toml"\n')
    (inner / "b.toml").write_text(f'extends = "{way_back}"\n')
    message = refusal("inner/a.toml", tmp_path)
    assert message.endswith(f"extends: goes round in a circle: {inner}/a.toml -> {inner}/b.toml -> {inner}/a.toml")
