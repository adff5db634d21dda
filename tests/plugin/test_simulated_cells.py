"""Which cells are simulated, how they are named and counted, and what a pass of theirs is worth."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pytest_llmdevice.matrix.vocabulary import checks

pytestmark = pytest.mark.usefixtures("fake_simulation")

CARDS = """
models = "llama"
devices = ["cpu", "cuda:*", "rocm:0", "mps"]
dtypes = "float32"
strategies = ["to", "split"]
[[exclude]]
devices = ["cpu", "mps"]
strategies = "split"
"""


@pytest.fixture
def cards(project: pytest.Pytester) -> pytest.Pytester:
    project.makefile(".toml", cards=CARDS)
    project.makepyfile("def test_cell(llm_cell): pass")
    return project


def run(project: pytest.Pytester, *args: str, matrix: str = "cards.toml") -> pytest.RunResult:
    return project.runpytest(
        "--llm-matrix", "--llm-matrix-file", matrix, "-p", "no:cacheprovider", "-v", "-ra", *args, "."
    )


def ids(result: pytest.RunResult, outcome: str = "PASSED") -> list[str]:
    return [line.partition("[")[2].partition("]")[0] for line in result.outlines if f"] {outcome}" in line]


def test_without_the_option_nothing_is_simulated(cards: pytest.Pytester) -> None:
    assert ids(run(cards)) == ["llama.cpu.fp32.none.to"]


def test_absent_devices_that_a_profile_plays_are_simulated_and_no_others(cards: pytest.Pytester) -> None:
    assert ids(run(cards, "--llm-simulate=cuda:2")) == [
        "llama.cpu.fp32.none.to",
        "llama.cuda0.fp32.none.to.sim",
        "llama.cuda0.fp32.none.split.sim",
        "llama.cuda1.fp32.none.to.sim",
        "llama.cuda1.fp32.none.split.sim",
    ]


def test_each_kind_has_its_own_machine(cards: pytest.Pytester) -> None:
    result = run(cards, "--llm-simulate=cuda", "--llm-simulate=rocm-dcu", "--llm-simulate=mps")
    assert ids(result) == [
        "llama.cpu.fp32.none.to",
        "llama.cuda0.fp32.none.to.sim",
        "llama.rocm0.fp32.none.to.sim",
        "llama.mps.fp32.none.to.sim",
    ]
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*absent: strategy split needs two cuda cards, simulated: cuda:0",
            "SKIPPED*absent: strategy split needs two rocm cards, simulated: rocm:0",
        ]
    )


def test_a_card_beyond_the_simulated_ones_is_absent(cards: pytest.Pytester) -> None:
    cards.makefile(".toml", third="models = 'llama'\ndevices = ['cuda:0', 'cuda:2']\ndtypes = 'float32'\n")
    result = run(cards, "--llm-simulate=cuda:2", matrix="third.toml")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*no cuda:2 here (this machine has cpu; simulated: cuda:0, cuda:1)"])


def test_what_no_library_can_do_is_unsupported_simulated_too(cards: pytest.Pytester) -> None:
    cards.makefile(
        ".toml",
        flash="models = 'llama'\ndevices = 'cuda:0'\ndtypes = 'float16'\nattention = ['sdpa', 'flash_attention_2']\n",
    )
    result = run(cards, "--llm-simulate=cuda", matrix="flash.toml")
    assert ids(result, "SKIPPED") == ["llama.cuda0.fp16.none.to.flash_attention_2.sim"]
    result.stdout.fnmatch_lines(["SKIPPED*unsupported: flash_attention_2 has kernels*not for a simulated device"])


def test_a_t4_computes_in_bfloat16(cards: pytest.Pytester) -> None:
    cards.makefile(".toml", half="models = 'llama'\ndevices = 'cuda:0'\ndtypes = ['bfloat16', 'float16']\n")
    run(cards, "--llm-simulate=cuda-t4", matrix="half.toml").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (["--llm-cell=simulated=true"], 4),
        (["--llm-cell=simulated=false,device=cpu"], 1),
        (["--llm-cell=device=cuda:*,strategy=to"], 2),
        (["--llm-cell=llama.cuda1.fp32.none.split.sim"], 1),
        (["-m", "llm_cell(simulated=True)"], 4),
        (["-m", "llm_cell(device='cuda:1', simulated=True)"], 2),
    ],
)
def test_simulated_cells_are_chosen_like_others(cards: pytest.Pytester, args: list[str], count: int) -> None:
    run(cards, "--llm-simulate=cuda:2", *args).assert_outcomes(passed=count, deselected=count and 8 - count)


def test_the_id_of_the_real_cell_is_no_id_of_the_simulated_one(cards: pytest.Pytester) -> None:
    result = run(cards, "--llm-simulate=cuda:2", "--llm-cell=llama.cuda1.fp32.none.to")
    result.stderr.fnmatch_lines(["ERROR: *matches no cell of the matrix*did you mean 'llama.cuda1.fp32.none.to.sim'?*"])


def test_expectations_of_the_matrix_hold_for_simulated_cells(cards: pytest.Pytester) -> None:
    cards.makefile(
        ".toml",
        expect="models = 'llama'\ndevices = ['cpu', 'cuda:0']\ndtypes = 'float32'\n"
        "[[expect]]\ndevices = 'cuda:*'\nchecks = 'loads'\nxfail = 'known'\n",
    )
    cards.makepyfile(
        refusing="""
        from pytest_llmdevice import BuiltinTarget

        class Refusing(BuiltinTarget):
            def load(self, checkpoint, cell):
                assert not cell.simulated
                return super().load(checkpoint, cell)
        """
    )
    cards.syspathinsert()
    suite = ("--llm-target=refusing:Refusing", "--pyargs", "pytest_llmdevice.suite", "-k", "test_loads")
    result = run(cards, "--llm-simulate=cuda", *suite, matrix="expect.toml")
    result.assert_outcomes(passed=1, xfailed=1, deselected=2 * len(checks()) - 1)
    result.stdout.fnmatch_lines(
        ["2 cells: 1 partly run; simulated: 1 partly run", "Failed as expected", "  1 cell: *known"]
    )


def test_the_header_says_what_is_simulated_and_what_a_pass_proves(cards: pytest.Pytester) -> None:
    run(cards, "--llm-simulate=cuda:2", "--llm-simulate=mps,memory=8GiB").stdout.fnmatch_lines(
        [
            "llm matrix cards.toml: 8 cells, 1 run here, 5 simulated, 2 absent",
            "  cpu: *float32*",
            "  simulated cuda:2: cuda:0, cuda:1 as NVIDIA H100 80GB HBM3, 80 GiB each; values are computed on the CPU*",
            "  simulated mps: mps as Apple M3 Max, 8 GiB; *, a pass proves placement and dtypes, not the hardware",
        ]
    )


def test_the_summary_counts_simulated_cells_apart(cards: pytest.Pytester) -> None:
    cards.makepyfile("def test_cell(llm_cell): assert llm_cell.device != 'cuda:1'")
    result = run(cards, "--llm-simulate=cuda:2")
    result.stdout.fnmatch_lines(
        [
            "8 cells: 1 partly run, 3 not run; simulated: 2 failed, 2 partly run",
        ]
    )


def test_a_simulated_pass_never_satisfies_what_the_matrix_requires(cards: pytest.Pytester) -> None:
    cards.makefile(
        ".toml",
        required="models = 'llama'\ndevices = ['cpu', 'cuda:0']\ndtypes = 'float32'\n"
        "[require]\ndevices = '*'\nchecks = '*::test_cell'\n",
    )
    # A model of the project's own: cards that only say that they are there cannot hold any.
    cards.makeconftest("import pytest\n\n@pytest.fixture(scope='session')\ndef llm_model(llm_cell): return 'a model'\n")
    cards.makepyfile("def test_cell(llm_cell, llm_model): pass")
    result = run(cards, "--llm-simulate=cuda", matrix="required.toml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "2 cells: 1 passed; simulated: 1 passed",
            "?require? not met: device cuda:0: none of its 1 cells passed on real hardware, 1 passed only simulated",
        ]
    )


def test_needs_are_judged_by_the_simulated_machine(cards: pytest.Pytester) -> None:
    cards.makepyfile(
        """
        import pytest

        @pytest.mark.llm_requires(devices=2, memory="8GiB", capability="7.5")
        def test_two(llm_cell): pass

        @pytest.mark.llm_requires(devices=3)
        def test_three(llm_cell): pass

        @pytest.mark.llm_requires(capability="8.0")
        def test_capability(llm_cell): pass
        """
    )
    result = run(cards, "--llm-simulate=cuda-t4:2,memory=8GiB", "--llm-cell=llama.cuda0.fp32.none.to.sim")
    result.assert_outcomes(passed=1, skipped=2, deselected=21)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*needs 3 cuda devices, simulated: cuda:0, cuda:1",
            "SKIPPED*needs compute capability 8.0, cuda:0 Tesla T4 has 7.5",
        ]
    )


def test_the_simulated_machine_is_in_the_user_properties(cards: pytest.Pytester) -> None:
    run(cards, "--llm-simulate=cuda:2", "--junitxml=out.xml")
    tests = [
        {element.attrib["name"]: element.attrib["value"] for element in case.iter("property")}
        for case in ET.parse(cards.path / "out.xml").iter("testcase")
    ]
    by_cell = {properties["llm.cell"]: properties for properties in tests}
    simulated = by_cell["llama.cuda1.fp32.none.to.sim"]
    assert (simulated["llm.simulated"], simulated["llm.profile"]) == ("True", "cuda:2")
    assert "llm.profile" not in by_cell["llama.cpu.fp32.none.to"]
