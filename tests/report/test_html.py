"""The text of the page, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder, check, done, large

from pytest_llmdevice.report.html import SCRIPTS, STYLES, html, is_web
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.page_data import FIELDS, page_data, peak, script_json
from pytest_llmdevice.report.runs import time_text
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import Memory
from pytest_llmdevice.text import harmless


def report_of(builder: ResultsBuilder, folder: Path) -> ReportModel:
    return ReportModel.of(merge_runs([builder.file(folder)]))


def cell_of(data: dict[str, Any], place: int = 0) -> dict[str, Any]:
    return dict(zip(FIELDS, data["cells"][place], strict=True))


@pytest.fixture
def page(tmp_path: Path) -> str:
    builder = ResultsBuilder({CPU_FP32: {"loads": "passed"}, CPU_BF16: {"dtypes": "failed"}})
    return html(report_of(builder, tmp_path), title="A & B")


def test_the_page_loads_nothing(page: str) -> None:
    assert re.findall(r"<(?:link|img|iframe|object|embed|base)\b", page) == []
    assert (
        re.findall(r"\s(?:src|srcset|action|style|on\w+)=", page.partition("<body>")[2].partition("<script")[0]) == []
    )
    assert re.findall(r"@import|url\(", page) == []


@pytest.mark.parametrize("tag", ["style", 'script type="module"'])
def test_the_policy_allows_the_one_style_and_the_one_script(page: str, tag: str) -> None:
    name = tag.partition(" ")[0]
    text = page.partition(f"<{tag}>")[2].partition(f"</{name}>")[0]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#39;none&#39;;")
    assert f"{name}-src &#39;sha256-{digest}&#39;" in policy


def test_the_title_is_escaped(page: str) -> None:
    assert "<title>A &amp; B</title>" in page


def test_the_same_results_make_the_same_page(tmp_path: Path) -> None:
    report = report_of(ResultsBuilder({CPU_FP32: {"loads": "passed"}}), tmp_path)
    assert html(report) == html(report)


def test_every_file_of_the_templates_is_part_of_the_page() -> None:
    folder = Path(html.__code__.co_filename).parent / "templates"
    assert sorted(path.name for path in folder.glob("scripts/*")) == sorted(SCRIPTS)
    assert sorted(path.name for path in folder.glob("styles/*")) == sorted(STYLES)


def test_json_inside_a_script_has_nothing_that_html_or_javascript_would_read() -> None:
    hostile = "</script><!--<script> & \u2028\u2029 ]]> \ud800"
    text = script_json({"text": hostile})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)["text"] == harmless(hostile)


def test_numbers_that_json_does_not_have_become_words() -> None:
    assert json.loads(script_json({"a": [float("nan"), float("inf")]})) == {"a": ["nan", "inf"]}


def test_a_cell_carries_axes_outcome_and_measures(tmp_path: Path) -> None:
    builder = ResultsBuilder({SIMULATED: {"loads": "passed"}}, changes={SIMULATED: {"load_seconds": 0.123456789}})
    data = page_data(report_of(builder, tmp_path))
    cell = cell_of(data)
    assert cell["id"] == "llama.cuda0.bf16.none.to.sim"
    assert {axis: values[cell[axis]] for axis, values in data["axes"].items()} == {
        "target": "builtin",
        "model": "llama",
        "device": "cuda:0",
        "dtype": "bfloat16",
        "quantization": "none",
        "strategy": "to",
        "attention": "default",
    }
    assert data["marks"][cell["mark"]] == ["passed", True, ".~", "passed (simulated)"]
    assert cell["load"] == pytest.approx(0.12346)
    assert cell["memory"] == 2**21


def test_what_cells_share_is_kept_once(tmp_path: Path) -> None:
    few, many = (page_data(report_of(large(count), tmp_path / str(count)))["pool"] for count in (500, 900))
    assert len(many) == len(few) < 20


def test_a_value_of_an_axis_that_is_unknown_comes_after_those_that_are(tmp_path: Path) -> None:
    cells = [replace(CPU_FP32, model=model) for model in ("hub:a/b@c", "opt", "llama")]
    report = report_of(ResultsBuilder({cell: {"loads": "passed"} for cell in cells}), tmp_path)
    assert page_data(report)["axes"]["model"] == ["llama", "opt", "hub:a/b@c"]


def test_the_peak_is_that_of_the_cards_over_what_they_held_before_the_load() -> None:
    load = (
        Memory(place="host", before=100, after=150, peak=400),
        Memory(place="cuda:0", before=10, after=20, peak=30),
        Memory(place="cuda:1", before=0, after=5, peak=7),
    )
    generate = (Memory(place="cuda:0", before=20, after=20, peak=50),)
    assert peak(done(CARD, load_memory=load, generate_memory=generate)) == 47


def test_the_peak_is_that_of_the_host_where_no_card_was_used() -> None:
    load = (
        Memory(place="host", before=100, after=150, peak=400),
        Memory(place="cuda:0", before=10, after=10, peak=10),
    )
    assert peak(done(CPU_FP32, load_memory=load)) == 300


def test_there_is_no_peak_where_nothing_was_measured() -> None:
    assert peak(done(CPU_FP32, load_memory=())) is None


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-11-25T10:00:00+00:00", "2026-11-25 10:00 UTC"),
        ("2026-11-25T10:00:00+02:00", "2026-11-25 08:00 UTC"),
        ("2026-11-25T10:00:00", "2026-11-25T10:00:00"),
        ("long ago", "long ago"),
    ],
)
def test_a_moment_is_told_in_utc_or_as_it_is(moment: str, words: str) -> None:
    assert time_text(moment) == words


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://example.org/a?b#c", True),
        ("http://example.org", True),
        ("javascript:alert(1)", False),
        ("https://example.org/ onclick=x", False),
        ("HTTPS://example.org", False),
        ("", False),
    ],
)
def test_only_addresses_of_the_web_are_links(address: str, expected: bool) -> None:
    assert is_web(address) is expected


def test_conflicts_are_listed_on_the_page_and_in_the_cell(tmp_path: Path) -> None:
    builders = [
        ResultsBuilder({CPU_FP32: {"loads": "passed"}}, name="a"),
        ResultsBuilder({CPU_FP32: {"loads": "failed"}}, name="b", started="2026-11-25T12:00:00+00:00"),
    ]
    report = ReportModel.of(merge_runs([builder.file(tmp_path) for builder in builders]))
    [conflict] = cell_of(page_data(report))["more"]["conflicts"]
    assert conflict[0] == "loads"
    assert [sample[0] for sample in conflict[2]] == ["failed", "passed"]
    assert "one commit on one machine has two outcomes" in html(report).partition('id="conflicts"')[2]


def test_a_check_that_passed_silently_takes_no_more_room_than_it_needs(tmp_path: Path) -> None:
    builder = ResultsBuilder({CPU_FP32: {"loads": "passed", "dtypes": check(CPU_FP32, "dtypes", "skipped")}})
    checks = cell_of(page_data(report_of(builder, tmp_path)))["checks"]
    assert sorted(map(len, checks)) == [4, 7]


def test_what_does_not_apply_has_a_section_with_its_reason(tmp_path: Path, page: str) -> None:
    why = "does not apply: the model has no cache"
    skipped = check(CPU_FP32, "cache", "skipped", cause="does not apply", message=why)
    builder = ResultsBuilder({CPU_FP32: {"loads": "passed", "cache": skipped}, CPU_BF16: {"loads": "passed"}})
    section = (
        html(report_of(builder, tmp_path / "own"))
        .partition('<section id="does-not-apply"')[2]
        .partition("</section>")[0]
    )
    assert re.findall(r'<td class="mono">(.*?)</td>\s*<td>(.*?)\n', section) == [("cache", "the model has no cache")]
    assert section.count('class="cell mono"') == 1
    assert "does-not-apply" not in page
