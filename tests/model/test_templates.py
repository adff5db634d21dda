"""Names by patterns in which a star stands for a layer."""

from __future__ import annotations

import pytest

from pytest_llmdevice.model.templates import declared, filled, learned, template


@pytest.mark.parametrize(
    ("name", "pattern", "numbers"),
    [
        ("h.3.query.weight", "h.*.query.weight", ("3",)),
        ("layers.10.experts.2.w1", "layers.*.experts.*.w1", ("10", "2")),
        ("conv1d.weight", "conv1d.weight", ()),
        ("0.weight", "*.weight", ("0",)),
    ],
)
def test_numbers_are_stars(name: str, pattern: str, numbers: tuple[str, ...]) -> None:
    assert template(name) == (pattern, numbers)
    assert filled(pattern, numbers) == name


PATTERNS = {
    "blocks.*.q": "model.layers.*.self_attn.q_proj",
    "blocks.*": "model.layers.*",
    "wte": "model.embed_tokens",
    "x.*.y.*": "*.z.*",
}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("blocks.3.q.weight", "model.layers.3.self_attn.q_proj.weight"),
        ("blocks.3.q", "model.layers.3.self_attn.q_proj"),
        ("blocks.3.mlp.weight", "model.layers.3.mlp.weight"),
        ("blocks.3.queue", "model.layers.3.queue"),
        ("wte.weight", "model.embed_tokens.weight"),
        ("wtext.weight", None),
        ("my.wte.weight", None),
        ("x.1.y.2.w", "1.z.2.w"),
    ],
)
def test_the_longest_pattern_that_fits_up_to_a_dot_counts(name: str, other: str | None) -> None:
    assert declared(name, PATTERNS) == other


def test_patterns_are_learned_from_names_that_agree() -> None:
    pairs = {
        "h.0.q.weight": "layers.0.attn.q_proj.weight",
        "h.1.q.weight": "layers.1.attn.q_proj.weight",
        "out.weight": "lm_head.weight",
    }
    patterns = learned(pairs)
    assert declared("h.7.q.weight", patterns) == "layers.7.attn.q_proj.weight"
    assert declared("h.7.q.bias", patterns) == "layers.7.attn.q_proj.bias"
    assert declared("out.bias", patterns) == "lm_head.bias"


def test_what_names_contradict_is_not_learned() -> None:
    patterns = learned({"h.0.q": "layers.0.q", "h.1.q": "layers.1.k", "h.2.x": "layers.3.x"})
    assert patterns == {"h.*": "layers.*"}
    assert learned({}) == {}
