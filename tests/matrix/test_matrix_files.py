"""Finding matrix files, reading them, and one that extends another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.files import folder, shipped

BASE = 'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n'


def refusal(name: str, base: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(name, base)
    return str(caught.value)


def test_a_shipped_matrix_goes_by_its_name_from_anywhere(tmp_path: Path) -> None:
    assert load("default", tmp_path) == load(str(folder() / "default.toml"), tmp_path)


def test_a_path_is_relative_to_the_base(tmp_path: Path) -> None:
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "mine.toml").write_text(BASE)
    assert load("matrices/mine.toml", tmp_path).models == ("llama",)


def test_an_unknown_name_is_answered_with_the_nearest_shipped_one_and_all_of_them(tmp_path: Path) -> None:
    assert refusal("defualt", tmp_path) == (
        f"unknown matrix 'defualt': no file {tmp_path / 'defualt'}; did you mean 'default'? "
        f"(shipped matrices: {', '.join(shipped())})"
    )


def test_a_folder_is_no_matrix(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert refusal("mine", tmp_path) == f"matrix 'mine': {tmp_path / 'mine'} is a folder; a matrix is a TOML file"


def test_a_name_that_no_file_can_have_is_an_error_of_the_user(tmp_path: Path) -> None:
    assert refusal("x" * 5000, tmp_path).endswith("cannot be read: File name too long")


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX ones")
def test_a_file_that_may_not_be_read_is_named_with_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BASE)

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    # The tests may run as root, whom no mode of a file keeps out.
    monkeypatch.setattr(Path, "open", refuse)
    assert refusal("mine.toml", tmp_path) == f"{path}: cannot be read: Permission denied"


def test_broken_toml_is_named_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("models = [\n  'llama',\n]\ndevices = \n")
    message = refusal("mine.toml", tmp_path)
    assert message.startswith(f"{tmp_path / 'mine.toml'}: not valid TOML: ")
    assert "at line 4, column 11" in message


def test_a_key_given_twice_is_broken_toml(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('models = ["llama"]\nmodels = ["gpt2"]\n')
    assert "at line 2, column 18" in refusal("mine.toml", tmp_path)


def test_a_file_that_is_not_utf8_is_broken_toml(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b'models = ["\xff"]')
    assert "not valid TOML: 'utf-8' codec can't decode byte 0xff in position 11" in refusal("mine.toml", tmp_path)
