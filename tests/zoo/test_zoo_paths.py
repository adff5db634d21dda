from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import CheckpointError, ConfigurationError
from pytest_llmdevice.zoo.resolve import refuse_impossible


def test_a_directory_with_a_configuration_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert zoo.checkpoint(f"path:{tmp_path}") == tmp_path


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert zoo.checkpoint("path:model") == tmp_path / "model"


@pytest.mark.parametrize("look", [zoo.checkpoint, lambda model: refuse_impossible([model])], ids=["had", "looked at"])
def test_a_missing_directory_is_the_users_mistake_and_the_nearest_one_is_named(
    tmp_path: Path, look: Callable[[str], object]
) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(ConfigurationError, match=r"there is no directory .*my-modle; did you mean 'my-model'\?"):
        look(f"path:{tmp_path / 'my-modle'}")


def test_a_file_in_the_place_of_a_directory_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigurationError, match=r"is a file; name the folder of a checkpoint"):
        zoo.checkpoint(f"path:{tmp_path / 'model.safetensors'}")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody-of-that-name/x"])
def test_a_directory_that_no_file_system_has_is_the_users_mistake(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^path:"):
        zoo.checkpoint(f"path:{name}")


@pytest.mark.parametrize("name", ["a/b/c", "org/na me", "-x-/y", "a..b/c", "org/name.git", ""])
def test_a_name_that_no_repository_has_is_the_users_mistake(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no model: expected hub:org/name@revision"):
        refuse_impossible([f"hub:{name}@main"])


def test_what_can_be_is_not_refused(tmp_path: Path) -> None:
    refuse_impossible(["llama", f"path:{tmp_path}", "hub:org/name", "hub:gpt2@main"])


def test_a_directory_without_a_configuration_is_broken(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        zoo.checkpoint(f"path:{tmp_path}")


def test_a_path_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="path: names no directory"):
        zoo.checkpoint("path:")


def test_a_checkpoint_of_the_zoo_can_be_named_by_its_path(zoo_cache: Path) -> None:
    folder = zoo.checkpoint("llama", cache=zoo_cache)
    assert zoo.checkpoint(f"path:{folder}") == folder
