"""`llmdevice zoo`: every model that a matrix can name, what it exercises, and why one cannot be built."""

from __future__ import annotations

from cli.calling import call
from pytest_llmdevice.matrix.model_names import architectures
from pytest_llmdevice.matrix.registry import current


def test_every_family_architecture_and_trait_is_listed_once_with_what_it_is() -> None:
    found = call("zoo", "--json").json
    named = {(one["table"], one["name"]) for one in found}
    assert len(named) == len(found)
    assert {name for table, name in named if table == "family"} == set(current().names("family"))
    assert {name for table, name in named if table == "trait"} == set(current().names("trait"))
    assert {name for table, name in named if table != "trait"} >= set(architectures())
    by_name = {one["name"]: one for one in found}
    assert by_name["jamba"]["exercises"].startswith("linear attention and full attention in turn, experts")
    assert "encoder and decoder" in by_name["bart"]["exercises"]
    assert by_name["blt"]["cannot"].startswith("its forward pass asks its configuration for num_hidden_layers")
    assert sum(bool(one["cannot"]) for one in found) < 10


def test_the_table_fits_a_terminal_and_says_why_one_cannot_be_built() -> None:
    called = call("zoo", "qwen*", "blt", "right", "gpt_oss")
    assert called.code == 0
    assert called.err == ""
    assert max(map(len, called.out.splitlines())) <= 80
    assert "blt" in called.out
    assert "cannot be built: its forward pass" in called.out
    assert "gpt-oss" in called.out
    assert "the tokenizer pads on the right" in called.out
    assert "llama " not in called.out


def test_an_unknown_name_is_said_with_the_nearest() -> None:
    called = call("zoo", "gpt-os")
    assert called.code == 2
    assert "unknown model or trait 'gpt-os'; did you mean 'gpt-oss'?" in called.err
