"""Cards that a matrix file describes: what is registered of them, and what is wrong with a table."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cards import Profile, card_of
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.own_cards import OwnCard
from pytest_llmdevice.matrix.registry import Registry, built_in

AXES = """
models = ["llama"]
devices = ["cpu", "cuda:*"]
dtypes = ["float32"]
"""
TABLE = """
[[cards]]
name = "cuda-edge"
backend = "cuda"
card = "Edge Card"
memory = "6 GiB"
capability = [7, 2]
processors = 8
"""


pytestmark = pytest.mark.usefixtures("registry")


def written(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_it_is_an_entry_like_others(tmp_path: Path, registry: Registry) -> None:
    path = written(tmp_path, AXES + TABLE)

    load(str(path), tmp_path)
    load(str(path), tmp_path)  # once more, as another part of a run does

    card = registry.of(Profile)["cuda-edge"]
    assert (card.kind, card.card, card.memory, card.capability) == ("cuda", "Edge Card", 6 * 2**30, (7, 2))
    assert (card.toolkit, card.vendor, card.lacks) == ("13.0", "NVIDIA", ())
    assert card.lacking == ("bfloat16", "float8")
    assert registry.plugin_of(card) == f"matrix file {path.resolve()}"


def test_it_has_each_of_its_names(tmp_path: Path, registry: Registry) -> None:
    load(str(written(tmp_path, AXES + TABLE + 'also = ["edge-a", "edge-b"]\n')), tmp_path)

    assert {registry.of(Profile)[name].card for name in ("cuda-edge", "edge-a", "edge-b")} == {"Edge Card"}


def test_one_that_a_matrix_extends_is_there_too(tmp_path: Path, registry: Registry) -> None:
    written(tmp_path, AXES + TABLE, "base.toml")

    load(str(written(tmp_path, 'extends = "base.toml"\n' + TABLE.replace("edge", "rim"))), tmp_path)

    assert {"cuda-edge", "cuda-rim"} <= set(registry.of(Profile))


def test_another_process_finds_it_by_the_file(tmp_path: Path, registry: Registry) -> None:
    load(str(written(tmp_path, AXES + TABLE)), tmp_path)
    (source,) = registry.sources("simulation profile")
    other = built_in()

    other.load_sources([source])

    assert other.of(Profile)["cuda-edge"] == registry.of(Profile)["cuda-edge"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("memory =", "memroy ="), "cards[0].memory: missing"),
        (('"6 GiB"', '"lots"'), "cards[0].memory: memory size 'lots' is not a number with a unit"),
        (('"6 GiB"', '"0 GiB"'), "cards[0].memory: a card needs some memory"),
        (("[7, 2]", '"7.2"'), "cards[0].capability"),
        (("capability = [7, 2]", ""), "cards[0]: an NVIDIA card needs a 'capability', as in [8, 9]"),
        (('backend = "cuda"', 'backend = "hip"'), "cards[0]: a card of ROCm needs an 'architecture', as in 'gfx942'"),
        (('backend = "cuda"', 'backend = "opencl"'), "cards[0].backend"),
        (('backend = "cuda"', 'backend = "hpu"'), "cards, 'cuda-edge': cards of hpu are not simulated"),
        (("processors = 8", "processors = 0"), "cards[0].processors"),
        (("processors = 8", 'lacks = ["bf16"]'), "cards[0].lacks: unknown lack 'bf16'; did you mean 'bfloat16'?"),
        (('"cuda-edge"', '"cuda edge"'), "cards[0].name"),
        (
            ('"cuda-edge"', '"cuda-t4"'),
            "profile 'cuda-t4': field 'name': pytest-llmdevice has registered one",
        ),
        (("processors = 8", "speed = 8"), "cards[0].speed"),
    ],
)
def test_a_malformed_table_is_refused_with_its_key(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(str(written(tmp_path, AXES + TABLE.replace(*change))), tmp_path)

    assert message in str(caught.value)


@pytest.mark.parametrize("file", ["nvidia", "amd", "apple", "intel", "others"])
def test_the_data_files_of_the_package_have_the_same_keys(file: str) -> None:
    text = resources.files("pytest_llmdevice.simulation").joinpath("data", f"{file}.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    for table in tables["cards"]:
        said = OwnCard.model_validate(table)
        if file != "others":
            assert said.entries()[0].card == card_of(table).card
