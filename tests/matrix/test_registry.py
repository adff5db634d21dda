"""The registry: what may be added to it, in which order it is, and who is named when something is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_llmdevice import Check, Family, Hint, Profile, Quantization, Registry, Result, Strategy
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.axes import DeviceKind
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import ITSELF, TABLES, Entry, built_in, current, in_force
from pytest_llmdevice.zoo.traits import Trait


def check(name: str = "no_nan", **changes: Any) -> Check:
    return replace(Check(name, lambda _: Result("no_nan"), "nothing is nan", "A number is missing."), **changes)


def strategy(name: str = "by-hand", **changes: Any) -> Strategy:
    return replace(Strategy(name, "a loop over all tensors", lambda *_: None), **changes)


def refusal(*entries: Any) -> str:
    registry = built_in()
    with pytest.raises(ConfigurationError) as caught:
        registry.load("plugin-of-mine", lambda registry: registry.add(*entries))
    return str(caught.value)


def one_of_each() -> list[Entry]:
    registry = built_in()
    kind = registry.of(DeviceKind)["xpu"]
    quantization = registry.of(Quantization)["nf4"]
    return [
        check(),
        strategy(),
        replace(quantization, name="own4"),
        Family("own", "LlamaConfig", {}),
        Trait("own", "what is other", "Somebody has it.", "https://example.com"),
        replace(kind, name="npu", torch_type="npu"),
        Profile("cuda-own", "cuda", "Own Card", 2**30),
        Hint("own-cause", "what usually causes it", "https://example.com"),
    ]


def test_there_is_a_table_for_each_kind_of_entry() -> None:
    registry = built_in()
    assert {type(entry).table for entry in one_of_each()} == set(TABLES)
    assert all(registry.names(table) for table in TABLES)


@pytest.mark.parametrize("entry", one_of_each(), ids=lambda entry: type(entry).table)
def test_what_is_added_is_the_last_of_its_table_and_known_by_its_plugin(entry: Entry) -> None:
    registry = built_in()
    registry.load("plugin-of-mine", lambda registry: registry.add(entry))
    table = type(entry).table
    assert registry.names(table)[-1] == entry.name
    assert registry.get(table, entry.name) is entry
    assert registry.plugin_of(entry) == "plugin-of-mine"
    others = registry.entries(table)[:-1]
    assert {registry.plugin_of(other) for other in others} == {ITSELF}


@pytest.mark.parametrize("entry", one_of_each(), ids=lambda entry: type(entry).table)
def test_a_second_entry_of_a_name_names_plugin_hook_field_and_the_first_plugin(entry: Entry) -> None:
    table = type(entry).table
    assert refusal(entry, entry) == (
        f"plugin plugin-of-mine, hook pytest_llm_register: {table} {entry.name!r}: field 'name': "
        "plugin-of-mine has registered one of this name"
    )


def test_a_name_that_is_built_in_is_taken() -> None:
    assert refusal(strategy("to")).endswith("field 'name': pytest-llmdevice has registered one of this name")


@pytest.mark.parametrize(
    ("entry", "field", "wanted"),
    [
        (check("no nan"), "name", "lower-case letters"),
        (check("NoNan"), "name", "lower-case letters"),
        (check(question=None), "question", "text"),
        (check(run="no_nan"), "run", "a function"),
        (check(origin="yes"), "origin", "True or False"),
        (check(needs=["generation"]), "needs", "a tuple with some of"),
        (check(needs=("sleep",)), "needs", "'generation', 'second load'"),
        (check(failure="bad"), "failure", "one of 'out-of-memory'"),
        (check(after="no_such"), "after", "there is no check 'no_such' before it"),
        (strategy("by.hand"), "name", "letters, digits"),
        (strategy(""), "name", "letters, digits"),
        (strategy(load=None), "load", "a function"),
        (strategy(cards="two"), "cards", "a whole number"),
        (strategy(cards=True), "cards", "a whole number"),
        (strategy(rules=["no"]), "rules", "a tuple of rules"),
        (Hint("cause", "text", source=None), "source", "text"),  # type: ignore[arg-type]
        (Hint("cause", "text", patterns="x"), "patterns", "a tuple of texts"),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_entry_names_plugin_hook_and_field(entry: Entry, field: str, wanted: str) -> None:
    text = refusal(entry)
    assert text.startswith(f"plugin plugin-of-mine, hook pytest_llm_register: {type(entry).table} {entry.name!r}: ")
    assert f"field {field!r}: " in text
    assert wanted in text


def test_what_is_no_entry_is_refused() -> None:
    assert "'to' is no entry: register a check, a strategy" in refusal("to")


def test_what_a_plugin_raises_is_told_with_its_name() -> None:
    def broken(_: Registry) -> None:
        Check("no_nan")  # type: ignore[call-arg]

    with pytest.raises(ConfigurationError, match=r"^plugin mine, hook pytest_llm_register: TypeError: .*missing 3"):
        built_in().load("mine", broken)


def test_a_check_goes_behind_the_one_that_it_names() -> None:
    registry = built_in()
    before = registry.names("check")
    registry.add(check(after="values"))
    place = before.index("values") + 1
    assert registry.names("check") == (*before[:place], "no_nan", *before[place:])


def test_the_checks_have_their_order_from_what_each_names() -> None:
    names = built_in().names("check")
    assert names[:3] == ("loads", "meta", "placement")
    assert names[-1] == "cards"
    for check in built_in().of(Check).values():
        assert not check.after or names.index(check.after) < names.index(check.name)


def test_every_list_of_names_follows_the_registry_in_force() -> None:
    registry = built_in()
    registry.add(*one_of_each())
    lists: list[Callable[[], tuple[str, ...]]] = [
        vocabulary.checks,
        vocabulary.strategies,
        vocabulary.quantizations,
        vocabulary.models,
        vocabulary.kinds,
    ]
    before = [names() for names in lists]
    with in_force(registry):
        assert current() is registry
        assert [names()[-1] for names in lists] == ["no_nan", "by-hand", "own4", "own", "npu"]
        assert Cell("own", "npu:1", "float16", "own4", "by-hand").id == "own.npu1.fp16.own4.by-hand"
    assert [names() for names in lists] == before


def test_a_kind_that_is_not_known_here_is_spelled_as_pytorch_does() -> None:
    assert Cell("llama", "npu:1", "float16").id == "llama.npu1.fp16.none.to"
    assert Cell("llama", "tpu", "float16").id == "llama.tpu.fp16.none.to"


@pytest.mark.parametrize("kind", built_in().entries("device kind"), ids=lambda kind: kind.name)
def test_a_kind_of_which_there_is_no_device_here_has_no_devices(kind: DeviceKind) -> None:
    assert kind.devices(0) == ()
    assert kind.devices(1) == ((f"{kind.torch_type}:0" if kind.indexed else kind.torch_type),)


def test_plugins_that_another_process_has_to_load_are_found_again() -> None:
    registry = built_in()
    registry.load("mine", lambda registry: registry.add(strategy()))
    assert registry.sources("device kind", "quantization") == []
    (source,) = registry.sources("strategy")
    assert (source.plugin, source.module) == ("mine", __name__)
    assert source.file == __file__


def test_a_plugin_of_another_process_is_loaded_from_its_file(tmp_path: Any) -> None:
    file = tmp_path / "conftest.py"
    file.write_text(
        "from pytest_llmdevice import Strategy\n"
        "def pytest_llm_register(registry):\n"
        "    registry.add(Strategy('by-hand', 'a loop', print))\n"
    )
    registry = built_in()
    registry.load_sources([("mine", "conftest", str(file))])
    assert registry.names("strategy")[-1] == "by-hand"
    with pytest.raises(ConfigurationError, match=re.escape("plugin mine: gone cannot be imported outside of pytest: ")):
        registry.load_sources([("mine", "gone", str(tmp_path / "gone.py"))])


@pytest.mark.parametrize(
    ("kind", "count", "devices"),
    [
        ("cuda", 0, ()),
        ("rocm", 2, ("cuda:0", "cuda:1")),
        ("mps", 0, ()),
        ("mps", 1, ("mps",)),
        ("cpu", 1, ("cpu",)),
    ],
)
def test_as_many_devices_are_spelled_as_there_are(kind: str, count: int, devices: tuple[str, ...]) -> None:
    assert built_in().of(DeviceKind)[kind].devices(count) == devices
