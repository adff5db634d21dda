"""`llmdevice matrix`: the cells, the saving, the rules, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.calling import call
from pytest_llmdevice.matrix.files import shipped

SMALL = """
description = "Two models, and a card"
models = ["llama", "gpt2"]
devices = ["cpu", "cuda:*"]
dtypes = ["float32", "bfloat16"]
strategies = ["to", "split"]

[[exclude]]
devices = ["cpu"]
strategies = ["split"]
reason = "one device"

[[exclude]]
models = ["gpt2"]
strategies = ["split"]

[[include]]
models = ["gpt2"]
devices = ["cpu"]
dtypes = ["float32"]
quantization = ["int8"]
strategies = ["to"]

[[expect]]
models = ["llama"]
checks = ["values"]
versions = { torch = ">=2" }
xfail = "it is known"
source = "https://example.org/1"

[[expect]]
devices = ["cuda:*"]
tolerance = 0.5
dense = ["lm_head", "*.gate"]

[require]
devices = ["cpu", "cuda:0"]
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return str(path)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "matrix.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_ids_are_one_a_line_and_nothing_else(small: str) -> None:
    assert call("matrix", "show", small, "--ids").out.splitlines() == [
        "llama.cpu.fp32.none.to",
        "llama.cpu.bf16.none.to",
        "llama.cuda0.fp32.none.to",
        "llama.cuda0.fp32.none.split",
        "llama.cuda0.bf16.none.to",
        "llama.cuda0.bf16.none.split",
        "gpt2.cpu.fp32.none.to",
        "gpt2.cpu.bf16.none.to",
        "gpt2.cuda0.fp32.none.to",
        "gpt2.cuda0.bf16.none.to",
        "gpt2.cpu.fp32.int8.to",
    ]


def test_json_has_the_product_the_rules_and_the_cells(small: str) -> None:
    found = call("matrix", "show", small, "--json").json

    assert (found["product"], found["allowed"], found["included"], found["count"]) == (16, 10, 1, 11)
    assert found["axes"]["device"] == {"cpu": 5, "cuda:0": 6}
    # A cell that two rules exclude counts for the first.
    assert [(rule["cells"], rule["reason"]) for rule in found["excluded"]] == [(4, "one device"), (2, "")]
    assert [(rule["cells"], rule["xfail"], rule["tolerance"]) for rule in found["expected"]] == [
        (6, True, None),
        (6, False, 0.5),
    ]
    assert found["required"] == {"devices": ["cpu", "cuda:0"]}
    assert len(found["cells"]) == 11


def test_the_summary_says_what_the_rules_are_about(small: str) -> None:
    out = call("matrix", "show", small).out

    assert "11 cells, 69 % of the product" in " ".join(out.split())
    assert "6  of them excluded" in out
    assert "1  more because [[include]] asks for them" in out
    assert "device        cpu 5, cuda:0 6" in out
    assert "values will fail (with torch >=2): it is known" in out
    assert "https://example.org/1" in out
    assert "left dense on purpose: lm_head, *.gate; agreement within 0.5" in " ".join(out.split())
    assert "Required: each of these in a cell that passed on real hardware\n  devices  cpu cuda:0" in out


def test_the_saving_of_pairwise_coverage_is_said() -> None:
    out = call("matrix", "show", "default").out
    found = call("matrix", "show", "default", "--json").json

    share = f"{100 * found['count'] / found['product']:.0f} %"
    assert f"matrix default: {found['count']} cells, {share} of the product" in out
    assert "cells in which every pair of values occurs on each kind of device" in out


def test_no_line_is_wider_than_the_terminal_but_for_addresses(small: str) -> None:
    for name in (small, "default"):
        lines = call("matrix", "show", name).out.splitlines()

        assert [line for line in lines if len(line) > 80 and "https://" not in line and small not in line] == []


def test_a_star_is_one_card_unless_told_otherwise(small: str) -> None:
    assert "cuda:*: counted as one card" in call("matrix", "show", small).out

    called = call("matrix", "show", small, "--cards", "cuda=3", "--ids")

    assert "llama.cuda2.fp32.none.to" in called.out
    assert "counted as one card" not in call("matrix", "show", small, "--cards", "cuda=3").out


def test_simulated_cards_make_simulated_cells(small: str) -> None:
    lines = call("matrix", "show", small, "--simulate", "cuda:2", "--ids").out.splitlines()

    assert "llama.cuda1.fp32.none.to.sim" in lines
    assert {line.endswith(".sim") for line in lines if "cuda" in line} == {True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cards", "cuda=0"], "--cards 'cuda=0': write a number from 1 to 64, as in cuda=2"),
        (["--cards", "cuda"], "--cards 'cuda': write a number from 1 to 64, as in cuda=2"),
        (["--cards", "cpu=2"], "--cards 'cpu=2': unknown kind of card 'cpu'"),
        (["--cards", "cuda=1", "--cards", "cuda=2"], "--cards cuda=2: cuda is given twice"),
        (["--cards", "cuda=1", "--simulate", "cuda"], "--cards and --simulate both have cuda"),
        (["--cards", "cuda=1", "--probe"], "--probe and --cards exclude each other"),
        (["--simulate", "cuba"], "Error: --simulate: unknown simulation profile 'cuba'; did you mean 'cuda'?"),
    ],
)
def test_what_cannot_be_assumed_of_a_machine_is_refused(arguments: list[str], message: str) -> None:
    called = call("matrix", "show", "cuda", *arguments)

    assert called.code == 2
    assert message in called.err


def test_the_shipped_matrices_are_listed_with_what_they_are_for() -> None:
    found = call("matrix", "list", "--json").json

    assert tuple(found) == shipped()
    assert all(found.values())
    assert "release     What a release must have shown" in call("matrix", "list").out


def test_every_shipped_matrix_is_good_and_says_nothing_in_vain() -> None:
    called = call("matrix", "validate", "--json")

    assert called.code == 0
    assert [result["matrix"] for result in called.json] == list(shipped())
    assert [result for result in called.json if not result["ok"] or result["notes"]] == []


def test_a_good_file_is_one_line(small: str) -> None:
    called = call("matrix", "validate", small)

    assert called.code == 0
    assert called.out == f"{small}: OK, 11 cells\n"


def test_every_problem_of_a_file_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, 'models = ["lama"]\ndevices = ["cpu"]\ndtypes = ["bf16"]\n')

    called = call("matrix", "validate", path, "cpu")

    assert called.code == 1
    lines = called.out.splitlines()
    assert lines[0].startswith(f"{path}: models: unknown model 'lama'; did you mean 'llama'?")
    assert lines[1].startswith(f"{path}: dtypes: unknown dtype 'bf16'")
    assert lines[2].startswith("cpu: OK")


def test_a_file_that_is_no_toml_is_a_problem_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "models = 'llama'\ndtypes 'float32'\n")

    called = call("matrix", "validate", path, "--json")

    assert called.code == 1
    assert called.json[0]["ok"] is False
    assert called.json[0]["problems"][0].startswith("not valid TOML: ")
    assert "line 2" in called.json[0]["problems"][0]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    called = call("matrix", "validate", str(tmp_path / "none.toml"))

    assert called.code == 1
    assert "no file" in called.out


def test_coverage_that_no_cell_can_give_is_a_problem(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n[require]\ndtypes = ["float16"]\n',
    )

    called = call("matrix", "validate", path)

    assert called.code == 1
    assert "require.dtypes: no cell has 'float16' (the matrix has: float32)" in called.out


def test_tables_of_its_own_that_are_about_no_cell_are_noted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'extends = "default"\ndevices = ["cpu"]\n[[exclude]]\ndevices = ["mps"]\n'
        '[[expect]]\nmodels = ["llama"]\nstrategies = ["split"]\nxfail = "never"\n',
    )

    called = call("matrix", "validate", path, "--json")

    assert called.code == 0
    # Not what it inherits: that is about the cards of other matrices.
    assert called.json[0]["notes"] == [
        "exclude[0] is about no cell of the matrix",
        "expect[0] is about no cell of the matrix",
    ]
