from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import CheckpointError
from pytest_llmdevice.zoo import cache as cache_module
from pytest_llmdevice.zoo.cache import CACHE_VARIABLE, cache_directory, cached, entry_name
from pytest_llmdevice.zoo.manifest import MANIFEST_NAME

LLAMA = zoo.family("llama")


def build_stub(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "tokenizer.json").write_text('{"b": 2}', encoding="utf-8")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_two_processes_build_the_same_bytes(zoo_cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from pytest_llmdevice import zoo\n"
        "torch.set_num_threads(2); torch.set_default_dtype(torch.float16); torch.manual_seed(7)\n"
        "with torch.inference_mode():\n"
        "    for name in sys.argv[2:]: print(zoo.checkpoint(name, cache=Path(sys.argv[1])))"
    )
    names = ["mixtral"]
    command = [sys.executable, "-c", code, str(tmp_path), *names]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, elsewhere in zip(names, map(Path, finished.stdout.split()), strict=True):
        assert elsewhere.is_relative_to(tmp_path)
        assert hashes(elsewhere) == hashes(zoo.checkpoint(name, cache=zoo_cache))


def test_building_leaves_the_settings_of_the_process_alone(tmp_path: Path) -> None:
    import random

    import torch
    from transformers.utils import logging

    def settings() -> tuple[object, ...]:
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            torch.get_default_dtype(),
            torch.empty(0).device,
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            logging.is_progress_bar_enabled(),
        )

    before_all = torch.get_default_dtype(), torch.get_num_threads()
    try:
        torch.set_default_dtype(torch.bfloat16)
        torch.set_num_threads(2)
        with torch.no_grad(), torch.device("meta"):
            before = settings()
            zoo.checkpoint("gpt2", cache=tmp_path)
            assert settings() == before
    finally:
        torch.set_default_dtype(before_all[0])
        torch.set_num_threads(before_all[1])


def test_a_failing_build_leaves_the_settings_and_the_cache_alone(tmp_path: Path) -> None:
    import torch

    from pytest_llmdevice.zoo.isolation import pinned_settings

    def build_and_fail(folder: Path) -> None:
        build_stub(folder)
        with pinned_settings(0):
            raise RuntimeError("no luck")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no luck"):
        cached(LLAMA, 0, build_and_fail, cache=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert [path for path in (tmp_path / "zoo").iterdir() if path.is_dir()] == []


def test_concurrent_processes_build_a_family_once(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from pytest_llmdevice import zoo
from pytest_llmdevice.zoo.cache import cached

root, ready = Path(sys.argv[1]), Path(sys.argv[2])

def build(folder):
    with (root / "builds").open("a") as log:
        log.write("built\\n")
    while len(list(ready.iterdir())) < 4:
        time.sleep(0.01)
    (folder / "config.json").write_text("{}")

(ready / sys.argv[3]).touch()
print(cached(zoo.family("llama"), 0, build, cache=root))
"""
    ready = tmp_path / "ready"
    ready.mkdir()
    arguments = [sys.executable, "-c", code, str(tmp_path), str(ready)]
    processes = [subprocess.Popen([*arguments, str(number)], stdout=subprocess.PIPE, text=True) for number in range(4)]
    printed = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert (tmp_path / "builds").read_text() == "built\n"
    assert printed == {str(tmp_path / "zoo" / entry_name(LLAMA, 0))}


def test_an_intact_entry_is_used_without_building(tmp_path: Path) -> None:
    def build_again(folder: Path) -> None:
        pytest.fail("built twice")

    with no_warning():
        first = cached(LLAMA, 0, build_stub, cache=tmp_path)
        assert cached(LLAMA, 0, build_again, cache=tmp_path) == first


def truncate_weights(entry: Path) -> None:
    os.truncate(entry / "model.safetensors", 400)


def break_configuration(entry: Path) -> None:
    (entry / "config.json").write_text('{"a": 1', encoding="utf-8")


def flip_a_bit(entry: Path) -> None:
    (entry / "model.safetensors").write_bytes(bytes(999) + b"\1")


def lose_tokenizer(entry: Path) -> None:
    (entry / "tokenizer.json").unlink()


def lose_manifest(entry: Path) -> None:
    (entry / MANIFEST_NAME).unlink()


def break_manifest(entry: Path) -> None:
    (entry / MANIFEST_NAME).write_text('{"files": ', encoding="utf-8")


def empty_manifest(entry: Path) -> None:
    (entry / MANIFEST_NAME).write_text("[]", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncate_weights, r"model\.safetensors has 400 bytes instead of 1000"),
        (break_configuration, r"config\.json has 7 bytes instead of 8"),
        (flip_a_bit, r"model\.safetensors has another content"),
        (lose_tokenizer, r"tokenizer\.json is missing"),
        (lose_manifest, rf"{MANIFEST_NAME} is missing"),
        (break_manifest, rf"{MANIFEST_NAME} cannot be read \(JSONDecodeError"),
        (empty_manifest, rf"{MANIFEST_NAME} cannot be read \(TypeError"),
    ],
)
def test_a_damaged_entry_is_rebuilt_with_a_warning(damage: Callable[[Path], None], named: str, tmp_path: Path) -> None:
    entry = cached(LLAMA, 0, build_stub, cache=tmp_path)
    whole = hashes(entry)
    damage(entry)
    with pytest.warns(UserWarning, match=f"rebuilding the damaged checkpoint .*: {named}"):
        assert cached(LLAMA, 0, build_stub, cache=tmp_path) == entry
    assert hashes(entry) == whole
    with no_warning():
        cached(LLAMA, 0, build_stub, cache=tmp_path)


def test_a_real_checkpoint_with_truncated_weights_is_rebuilt(zoo_cache: Path, tmp_path: Path) -> None:
    intact = zoo.checkpoint("llama", cache=zoo_cache)
    whole = hashes(intact)
    entry = shutil.copytree(intact, tmp_path / "zoo" / intact.name)
    os.truncate(entry / "model.safetensors", 1000)
    with pytest.warns(UserWarning, match="rebuilding the damaged checkpoint"):
        zoo.checkpoint("llama", cache=tmp_path)
    assert hashes(entry) == whole


def test_a_file_in_the_place_of_an_entry_is_replaced(tmp_path: Path) -> None:
    entry = tmp_path / "zoo" / entry_name(LLAMA, 0)
    entry.parent.mkdir()
    entry.write_text("not a folder", encoding="utf-8")
    assert (cached(LLAMA, 0, build_stub, cache=tmp_path) / "config.json").is_file()


def test_what_a_killed_build_left_behind_is_cleared(tmp_path: Path) -> None:
    left_over = tmp_path / "zoo" / f".{entry_name(LLAMA, 0)}.abc" / "fresh"
    left_over.mkdir(parents=True)
    cached(LLAMA, 0, build_stub, cache=tmp_path)
    assert not left_over.exists()


def test_the_manifest_records_what_an_entry_was_built_from(tmp_path: Path) -> None:
    entry = cached(LLAMA, 0, build_stub, cache=tmp_path)
    recipe = json.loads((entry / MANIFEST_NAME).read_text(encoding="utf-8"))["recipe"]
    assert recipe["arguments"] == dict(LLAMA.arguments)
    assert set(recipe["libraries"]) == {"torch", "transformers", "tokenizers", "safetensors"}


def test_another_seed_recipe_or_library_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {entry_name(LLAMA, 0), entry_name(LLAMA, 1)}
    monkeypatch.setattr(cache_module, "RECIPE_VERSION", -1)
    names.add(entry_name(LLAMA, 0))
    monkeypatch.setattr(cache_module, "version", lambda _: "0.0")
    names.add(entry_name(LLAMA, 0))
    assert len(names) == 4


def test_the_environment_variable_moves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cached(LLAMA, 0, build_stub).is_relative_to(tmp_path / "mine")


def test_the_cache_of_the_user_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_directory() == platformdirs.user_cache_path("llmdevice")


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        cached(LLAMA, 0, build_stub, cache=blocked)
    message = str(caught.value)
    assert message.startswith("the checkpoint of llama cannot be built: the cache directory ")
    assert "Not a directory" in message
    assert CACHE_VARIABLE in message
    assert "\n" not in message


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def build_on_a_full_disk(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        cached(LLAMA, 0, build_on_a_full_disk, cache=tmp_path)


def test_a_lock_that_is_never_released_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(cache_module, "_LOCK_TIMEOUT_SECONDS", 0.0)
    (tmp_path / "zoo").mkdir()
    with (
        FileLock(tmp_path / "zoo" / f"{entry_name(LLAMA, 0)}.lock"),
        pytest.raises(CheckpointError, match="another process has held the lock"),
    ):
        cached(LLAMA, 0, build_stub, cache=tmp_path)
