"""Repeated layers as one."""

from __future__ import annotations

import pytest

from pytest_llmdevice.diagnosis import Finding, Hint
from pytest_llmdevice.diagnosis.folding import fold_findings, format_numbers, starred


def of(*wheres: str, actual: str = "float32") -> list[Finding]:
    return [Finding(where, "bfloat16", actual) for where in wheres]


def wheres(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.where, count) for finding, count in fold_findings(findings)]


def test_names_that_differ_in_a_layer_are_one() -> None:
    found = of("model.layers.0.mlp.up.weight", "lm_head.weight", "model.layers.1.mlp.up.weight")
    assert wheres(found) == [("model.layers.{0,1}.mlp.up.weight", 2), ("lm_head.weight", 1)]


def test_layers_and_experts_fold_together_only_where_all_are_there() -> None:
    whole = of(*(f"layers.{layer}.experts.{expert}.up" for layer in range(2) for expert in range(8)))
    assert wheres(whole) == [("layers.{0,1}.experts.{0..7}.up", 16)]
    assert wheres(whole[:-1]) == [("layers.0.experts.{0..7}.up", 8), ("layers.1.experts.{0..6}.up", 7)]


@pytest.mark.parametrize(
    "pair",
    [
        [*of("layers.0.up"), *of("layers.1.up", actual="float16")],
        [Finding("layers.0.up", "a", "b", Hint("one", "")), Finding("layers.1.up", "a", "b", Hint("two", ""))],
        of("layers.0.up", "layers.0.down"),
        of("layers.0.up", "layer.1.up"),
        of("1.5 GiB", "1.6 GiB"),
        of("cuda:0", "cuda:1"),
        of("float16", "float32"),
    ],
)
def test_what_differs_in_more_than_a_layer_stays_apart(pair: list[Finding]) -> None:
    assert fold_findings(pair) == [(pair[0], 1), (pair[1], 1)]


def test_prompts_fold_too() -> None:
    assert wheres(of("prompt 0", "prompt 2")) == [("prompt {0,2}", 2)]


def test_one_of_a_kind_keeps_its_name() -> None:
    assert wheres(of("h.11.attn.bias")) == [("h.11.attn.bias", 1)]


@pytest.mark.parametrize(
    ("where", "star"),
    [
        ("model.layers.11.mlp.experts.3.up", "model.layers.*.mlp.experts.*.up"),
        ("blocks.0.1.weight", "blocks.*.*.weight"),
        ("generation, in h.2", "generation, in h.*"),
        ("lm_head.weight", "lm_head.weight"),
        ("cuda:1", "cuda:1"),
    ],
)
def test_a_star_stands_for_the_number_of_a_layer(where: str, star: str) -> None:
    assert starred(where) == star


@pytest.mark.parametrize(
    ("numbers", "text"), [([3], "3"), ([1, 0], "{0,1}"), ([0, 1, 2, 7], "{0..2,7}"), ([4, 6], "{4,6}")]
)
def test_numbers_are_written_as_runs(numbers: list[int], text: str) -> None:
    assert format_numbers(numbers) == text
