"""The benchmark over architectures excuses what its list says is the library's, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.architectures import Found, findings_of, judged, load, results_of
from benchmarks.upstream import NEVER, PROPERTIES, property_of
from pytest_llmdevice import Cell, Finding
from pytest_llmdevice.checks import Result
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.zoo.architectures import architectures
from pytest_llmdevice.zoo.exceptions import CANNOT

MADE_UP: Found = ("cache", "logits of a thing that no list knows", "0", "1")
PADDED: Found = ("padding", "logits of a padded batch", "those of its prompts alone", "0.3 away")
NAMES = ("bart-decoder", "roberta", "big_bird", "cpmant", "deepseek_v4", "doge", "fsmt", "jamba", "moshi", "xlstm")


def outcome(
    name: str, *found: Found, quantization: str = "none", dtype: str = "float32", strategy: str = "to"
) -> tuple[str, str]:
    looked = judged(name, found, Cell(name, "cpu", dtype, quantization, strategy), 0.0)
    return looked.outcome, looked.why


def test_no_finding_is_a_pass() -> None:
    assert outcome("llama") == ("passed", "")


def test_a_finding_that_no_property_explains_is_a_false_alarm() -> None:
    assert outcome("llama", MADE_UP) == ("false alarm", "cache")
    for name in ("llama", "bart"):
        assert outcome(name, PADDED) == ("false alarm", "padding")


def test_a_known_property_of_the_architecture_is_upstream_with_its_reason() -> None:
    said, why = outcome("bart-decoder", PADDED)
    assert said == "upstream"
    assert why.startswith("positions are counted by column, padding included")


def test_one_finding_that_is_not_known_makes_a_false_alarm_of_all() -> None:
    assert outcome("bart-decoder", PADDED, MADE_UP) == ("false alarm", "cache")


def test_the_page_has_every_architecture_and_why_some_cannot_be_built() -> None:
    page = (Path(__file__).parents[1] / "docs" / "architectures.md").read_text("utf-8")
    assert f"with transformers {version('transformers')} " in page
    rows = re.findall(r"^\| `(\S+)` \| (.+?) \| ", page, flags=re.MULTILINE)
    assert [name for name, _ in rows] == sorted(architectures())
    assert {name for name, said in rows if said == "cannot be built"} == set(CANNOT)
    assert not any(said == "false alarm" for _, said in rows)


@pytest.mark.parametrize("check", sorted(NEVER))
def test_what_a_model_is_made_of_is_never_excused(check: str) -> None:
    for name in NAMES:
        assert outcome(name, (check, "model.layers.0.weight", "cpu", "cuda:0")) == ("false alarm", check)


def test_the_list_names_checks_that_there_are_and_none_that_is_never_excused() -> None:
    known = set(current().of(Check))
    assert known >= NEVER
    for entry in PROPERTIES:
        never = NEVER - {"placement"} if entry.mapped else NEVER
        assert entry.checks <= known - never, entry.reason
        assert not re.fullmatch(entry.names, "llama"), entry.reason


def test_dense_experts_are_excused_only_where_something_was_to_be_packed() -> None:
    experts: Found = ("quantization", "model.layers.0.mlp.experts.up_proj", "packed", "dense")
    assert outcome("mixtral", experts, quantization="nf4")[0] == "upstream"
    assert outcome("mixtral", experts)[0] == "false alarm"
    assert not property_of("mixtral", ("quantization", "model.layers.0.self_attn.q_proj", "", ""), "nf4")


def test_what_rounding_does_is_excused_in_half_precision_only() -> None:
    routed: Found = ("agreement", "logits, first at prompt 2, position 4 of 24", "0.08", "0.0806")
    assert outcome("mixtral", routed, dtype="bfloat16")[0] == "upstream"
    assert outcome("mixtral", routed)[0] == "false alarm"
    assert outcome("llama", routed, dtype="bfloat16")[0] == "false alarm"


def test_what_packed_weights_do_is_excused_only_where_they_are_packed() -> None:
    raised: Found = ("forward", "forward, in backbone.layers.0.mixer", "no exception", "RuntimeError")
    assert outcome("mamba", raised, quantization="nf4")[0] == "upstream"
    assert outcome("mamba", raised)[0] == "false alarm"


def test_places_are_excused_only_where_the_library_chooses_them() -> None:
    left: Found = ("placement", "transformer.position_ids", "cuda:0 or cuda:1", "cpu")
    assert outcome("xlm", left, strategy="auto")[0] == "upstream"
    assert outcome("xlm", left, strategy="split")[0] == "false alarm"
    assert outcome("gpt2", left, strategy="auto")[0] == "false alarm"


def test_what_a_result_excuses_and_what_a_check_did_not_look_at_are_findings_here() -> None:
    finding = Finding("logits", "0", "1")
    said = ("prefix", "logits", "0", "1")
    assert findings_of(Result("prefix", (finding,), {"texts": 1})) == [said]
    assert findings_of(Result("prefix", (), {"texts": 1}, upstream=(finding,))) == [said]
    assert findings_of(Result("prefix", (), {"texts": 1})) == []
    assert findings_of(Result("prefix")) == [("prefix", "the check", "something to look at", "nothing")]


def test_findings_are_not_held_against_another_plain_load(
    checkpoint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a comparison would excuse whatever a check says of a plain load."""

    def check(self: Examination, name: str) -> Result:
        raise AssertionError(f"{self} judges {name}")

    monkeypatch.setattr(Examination, "check", check)
    folder = checkpoint("llama")
    results = list(results_of(folder, load(folder, Cell("llama", "cpu", "float32"))))
    assert [result.check for result in results] == list(current().of(Check))[: len(results)]
    assert [finding for result in results for finding in findings_of(result)] == []
