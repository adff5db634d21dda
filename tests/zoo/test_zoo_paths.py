from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import CheckpointError, CheckpointUnavailable, ConfigurationError


def test_a_directory_with_a_configuration_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert zoo.checkpoint(f"path:{tmp_path}") == tmp_path


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert zoo.checkpoint("path:model") == tmp_path / "model"


def test_a_missing_directory_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match=r"there is no directory .*nowhere"):
        zoo.checkpoint(f"path:{tmp_path / 'nowhere'}")


def test_a_directory_without_a_configuration_is_broken(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        zoo.checkpoint(f"path:{tmp_path}")


def test_a_path_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="path: names no directory"):
        zoo.checkpoint("path:")


def test_a_checkpoint_of_the_zoo_can_be_named_by_its_path(zoo_cache: Path) -> None:
    folder = zoo.checkpoint("llama", cache=zoo_cache)
    assert zoo.checkpoint(f"path:{folder}") == folder
