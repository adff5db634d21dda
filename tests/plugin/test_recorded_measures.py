"""What loads and generations took reaches reporters, from workers too, and the hook of whoever wants to log it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from xml.etree import ElementTree as ET

import pytest

SUITE = ("--pyargs", "pytest_llmdevice.suite")

BUFFERS = 1 if version("transformers").startswith("4.") else 2
"""Those of a llama: transformers 5 keeps the rotary frequencies twice."""


def properties(project: pytest.Pytester, test: str) -> list[dict[str, str]]:
    """The `llm.load_*` and `llm.generate_*` properties of each case of a test, from the JUnit file."""
    cases = ET.parse(project.path / "report.xml").getroot().iter("testcase")
    found = [case.iter("property") for case in cases if case.attrib["name"].partition("[")[0] == test]
    return [
        {
            entry.attrib["name"]: entry.attrib["value"]
            for entry in entries
            if entry.attrib["name"][4:8] in ("load", "gene")
        }
        for entries in found
    ]


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["serial", "a worker"])
def test_each_cell_has_its_measures_in_the_report(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult], workers: tuple[str, ...]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    run = run_process if workers else project.runpytest
    some = ("-k", "test_loads or test_dtypes or test_generation")
    run("--llm-matrix", "--llm-matrix-file=two.toml", "--junitxml=report.xml", *workers, *SUITE, *some)
    loads, generations = properties(project, "test_loads"), properties(project, "test_generation")
    assert len(loads) == len(generations) == 2
    for found, doing in ((loads, "load"), (generations, "generate")):
        for each in found:
            assert float(each[f"llm.{doing}_seconds"]) > 0
            assert float(each[f"llm.{doing}_cpu_percent"]) > 0
            assert int(each[f"llm.{doing}_memory_host_peak"]) > 10_000_000
    assert [each["llm.load_devices"].split()[:3] for each in sorted(loads, key=lambda it: it["llm.load_devices"])] == [
        ["cpu:", "21", "bfloat16"],
        ["cpu:", str(21 + BUFFERS), "float32"],
    ]
    assert properties(project, "test_dtypes") == [{}, {}]


def test_a_simulated_card_has_its_memory_in_the_report(project: pytest.Pytester, no_cards: object) -> None:
    project.makefile(".toml", card="models = 'llama'\ndevices = 'cuda:1'\ndtypes = 'float16'\nstrategies = 'to'\n")
    project.runpytest(
        "--llm-matrix", "--llm-matrix-file=card.toml", "--llm-simulate=cuda:2", "--junitxml=report.xml", *SUITE,
        "-k", "test_loads",
    )  # fmt: skip
    (found,) = properties(project, "test_loads")
    assert int(found["llm.load_memory_cuda1_before"]) == 0
    assert int(found["llm.load_memory_cuda1_peak"]) >= int(found["llm.load_memory_cuda1_after"]) > 10_000
    assert found["llm.load_devices"].startswith(f"cuda:1: 21 float16 and {BUFFERS} float32 tensors, ")


def test_the_hook_gets_the_measures_and_may_leave_them_out(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        def pytest_llm_cell_loaded(cell, measures, seconds):
            assert measures.seconds == seconds
            print(f"logged {cell}: {measures}")
        """
    )
    project.makepyfile(
        test_own="def test_own(llm_model): pass",
        other="def pytest_llm_cell_loaded(cell, model, seconds): print('without', cell)",
    )
    project.syspathinsert()
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "-s", "-p", "other", "test_own.py")
    count = 21 + BUFFERS
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines_random(
        [
            f"*logged llama.cpu.fp32.none.to: * s, * % of a core; host * MiB, peak *; cpu: {count} float32 tensors, *",
            "*without llama*",
        ]
    )
