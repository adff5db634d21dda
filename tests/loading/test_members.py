"""What a target may have beside load, and what is said where it does not fit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, ConfigurationError, Unsupported
from pytest_llmdevice.loading.load import Leftovers, Loaded
from pytest_llmdevice.loading.members import MEMBERS, declared_names, model_of, offered
from pytest_llmdevice.loading.target import FullTarget, validate
from pytest_llmdevice.model.own import member, own_of

CELL = Cell("llama", "cpu", "float32")


def target(**functions: Any) -> Any:
    functions.setdefault("load", lambda *_: nn.Linear(1, 1))
    return SimpleNamespace(**functions)


def loaded(code: Any, folder: Path) -> Loaded:
    return Loaded.load(code, folder, CELL, Leftovers())


def test_the_documented_protocol_has_every_member_with_what_it_is_called_with() -> None:
    for name, given in MEMBERS.items():
        code = getattr(FullTarget, name).__code__
        assert code.co_varnames[1 : code.co_argcount] == given, name
        assert getattr(FullTarget, name).__doc__


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "load"])
def test_a_function_that_cannot_be_called_so_is_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"target 'mine': '?{name}") as caught:
        validate(target(**{name: lambda: None}), "mine")
    if name != "generate":
        assert f"{name}({', '.join(MEMBERS[name])})" in str(caught.value)


@pytest.mark.parametrize("value", [nn.Linear(1, 1), 3, None, ["a"], object()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["model", "logits", "expected", "offers", "prompt_ids", "generate_text"])
def test_what_is_no_function_is_none_of_ours(name: str, value: object) -> None:
    code = target(**{name: value})
    validate(code, "mine")
    assert member(code, name) is None


def test_a_module_can_have_them_all(tmp_path: Path) -> None:
    module = ModuleType("whole")
    source = "\n".join(f"def {name}({', '.join(given)}): ..." for name, given in MEMBERS.items())
    exec(source, vars(module))  # the names are ours
    validate(module, "whole")
    assert all(member(module, name) is not None for name in MEMBERS)


@pytest.mark.parametrize(
    ("said", "reason"),
    [(True, ""), (False, "mine does not offer it"), ("no int8 here", "no int8 here"), (" spaces ", "spaces")],
)
def test_an_offer_is_yes_no_or_why_not(said: object, reason: str) -> None:
    assert offered(target(offers=lambda _: said), CELL, "mine") == reason


def test_without_a_word_everything_is_offered() -> None:
    assert offered(target(), CELL, "mine") == ""


@pytest.mark.parametrize("said", [None, "", 1, ["no"]])
def test_any_other_offer_is_a_mistake(said: object) -> None:
    with pytest.raises(ConfigurationError, match=r"offers\(llama.cpu.fp32.none.to\) returned"):
        offered(target(offers=lambda _: said), CELL, "mine")


def test_an_offer_that_raises_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="raised ZeroDivisionError"):
        offered(target(offers=lambda _: 1 / 0), CELL, "mine")


def test_what_load_does_not_offer_is_neither_error_nor_model(tmp_path: Path) -> None:
    def load(checkpoint: str, cell: Cell) -> nn.Module:
        raise Unsupported("no float32: it is too slow")

    found = loaded(target(load=load), tmp_path)
    assert (found.model, found.cause, found.error) == (None, "", "")
    assert found.skipped == "not offered: no float32: it is too slow"


def test_what_was_returned_is_handed_back_and_kept_as_long_as_the_load(tmp_path: Path) -> None:
    holder = SimpleNamespace(model=nn.Linear(1, 1), tokenizer="a tokenizer")
    found = loaded(target(load=lambda *_: holder), tmp_path)
    own = own_of(found.model)
    assert own is not None
    assert (found.model, own.whole, own.checkpoint) == (holder.model, holder, str(tmp_path))
    model = found.model
    found.release()
    del own
    assert own_of(model) is None


def test_the_targets_own_word_on_the_model_counts(tmp_path: Path) -> None:
    holder = SimpleNamespace(model=nn.Linear(1, 1), other=nn.Linear(2, 2))
    found = loaded(target(load=lambda *_: holder, model=lambda loaded: loaded.other), tmp_path)
    assert found.model is holder.other


def test_several_modules_are_listed_with_what_to_say() -> None:
    holder = SimpleNamespace(large=nn.Linear(1, 1), small=nn.Linear(2, 2))
    model, why = model_of(target(), holder)
    assert model is None
    assert why == (
        "SimpleNamespace with several modules: loaded.large (Linear), loaded.small (Linear): say which one in "
        "model(loaded)"
    )


def test_a_word_on_the_model_that_is_none_is_told() -> None:
    model, why = model_of(target(model=lambda _: None), object())
    assert model is None
    assert why.startswith("model(loaded): None, not a torch.nn.Module")


def test_names_are_a_mapping_or_a_function_that_gives_one() -> None:
    patterns = {"a.*": "b.*"}
    assert declared_names(target(names=patterns), None) == patterns
    assert declared_names(target(names=lambda _: patterns), None) == patterns
    assert declared_names(target(), None) == {}
    assert declared_names(target(names=["a list of names"]), None) == {}
    with pytest.raises(ConfigurationError, match="must map patterns"):
        declared_names(target(names={"a": 3}), None)
    with pytest.raises(ConfigurationError, match="must map patterns"):
        declared_names(target(names=lambda _: ["a"]), None)


@pytest.mark.parametrize(
    ("said", "words"),
    [("nowhere", "is no folder of a checkpoint"), (torch.ones(1), "gave Tensor"), (None, "gave NoneType")],
)
def test_another_reference_is_a_checkpoint_or_a_model_that_can_be_saved(
    said: object, words: str, tmp_path: Path
) -> None:
    found = loaded(target(expected=lambda *_: said), tmp_path)
    assert found.model is None
    assert words in found.cause
