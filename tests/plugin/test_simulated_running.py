"""What runs inside a simulated machine: the items and fixtures of its cell, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.matrix import vocabulary

TWO_CARDS = """
models = "llama"
devices = ["cpu", "cuda:*"]
dtypes = "float32"
"""

FLAGS = ("--llm-matrix", "--llm-matrix-file=cards.toml", "--llm-simulate=cuda:2", "-p", "no:cacheprovider", "-ra")

NOW = """
from pytest_llmdevice import simulation

def now():
    machine = simulation.Simulation.on
    return machine and str(machine.profile)
"""


@pytest.fixture
def cards(project: pytest.Pytester, fake_simulation: object) -> pytest.Pytester:
    """A project whose tests can ask which machine is on."""
    project.makefile(".toml", cards=TWO_CARDS)
    project.makepyfile(now=NOW)
    project.syspathinsert()
    return project


def test_items_of_simulated_cells_run_inside_and_all_others_outside(cards: pytest.Pytester) -> None:
    cards.makeconftest(
        """
        from now import now

        def pytest_collection_modifyitems(items):
            assert now() is None
            # A plain test between the cells, and cells that come back.
            items.sort(key=lambda item: item.name.partition("[")[0])

        def pytest_runtest_logfinish(nodeid):
            assert now() == ("cuda:2" if ".sim]" in nodeid else None)
        """
    )
    cards.makepyfile(
        """
        import pytest
        from now import now

        assert now() is None

        def expected(cell):
            return "cuda:2" if cell.simulated else None

        @pytest.fixture
        def around(llm_cell):
            assert now() == expected(llm_cell)
            yield
            assert now() == expected(llm_cell)

        def test_1_cell(llm_cell, around): assert now() == expected(llm_cell)
        def test_2_plain(): assert now() is None
        def test_3_cell(llm_device, llm_cell): assert now() == expected(llm_cell)

        class TestUnit:
            def test_4_cell(self, llm_cell, subtests):
                with subtests.test("inside"):
                    assert now() == expected(llm_cell)
        """
    )
    result = cards.runpytest(*FLAGS, ".")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    result.stdout.fnmatch_lines(["3 cells: 1 partly run; simulated: 2 partly run"])


def test_each_cell_has_a_fresh_machine_that_stays_as_long_as_the_cell(
    cards: pytest.Pytester, fake_simulation: type
) -> None:
    cards.makeconftest(
        """
        def pytest_collection_modifyitems(items):
            plain = [item for item in items if "plain" in item.name]
            cells = [item for item in items if "plain" not in item.name]
            items[:] = [cells[0], plain[0], *cells[1:]]
        """
    )
    cards.makepyfile(
        """
        import pytest
        from pytest_llmdevice import simulation

        seen = {}

        def test_1(llm_cell): seen.setdefault(llm_cell, set()).add(id(simulation.Simulation.on))
        def test_2(llm_cell): test_1(llm_cell)
        def test_plain(): pass
        @pytest.mark.skip
        def test_3(llm_cell): pass
        def test_4(llm_cell):
            test_1(llm_cell)
            assert len(seen[llm_cell]) == 1
        """
    )
    result = cards.runpytest(*FLAGS, "--llm-cell=simulated=true", ".")
    result.assert_outcomes(passed=7, skipped=2, deselected=4)
    assert fake_simulation.made == ["cuda:2", "cuda:2"]  # type: ignore[attr-defined]


def test_fixtures_are_torn_down_on_the_machine_that_they_were_set_up_on(cards: pytest.Pytester) -> None:
    cards.makepyfile(
        """
        import pytest
        from pytest_llmdevice import simulation

        def yielding(name, scope):
            @pytest.fixture(scope=scope, name=name)
            def fixture(llm_cell):
                machine = simulation.Simulation.on
                assert (machine is not None) == llm_cell.simulated
                yield
                assert simulation.Simulation.on is machine
                print("DOWN", name, llm_cell)
            return fixture

        of_session = yielding("of_session", "session")
        of_module = yielding("of_module", "module")
        of_function = yielding("of_function", "function")

        @pytest.fixture(scope="session")
        def plain():
            machine = simulation.Simulation.on
            yield
            assert simulation.Simulation.on is machine

        def test_cell(llm_cell, of_session, of_module, of_function, plain):
            assert (simulation.Simulation.on is not None) == llm_cell.simulated
        def test_after(): assert simulation.Simulation.on is None
        """
    )
    # The cells from the last to the first: a real one comes after simulated ones.
    cards.makeconftest(
        "def pytest_collection_modifyitems(items): items.sort(key=lambda item: item.nodeid, reverse=True)"
    )
    result = cards.runpytest(*FLAGS, "-s", "--setup-show", ".")
    result.assert_outcomes(passed=4)
    assert sum("DOWN of_" in line for line in result.outlines) == 9


@pytest.mark.parametrize("flags", [["-x"], ["--maxfail=2"], []])
def test_failures_leave_no_machine_on(cards: pytest.Pytester, flags: list[str], fake_simulation: type) -> None:
    cards.makepyfile(
        """
        import pytest
        from now import now

        @pytest.fixture(scope="session")
        def broken(llm_cell):
            assert now() == "cuda:2"
            yield
            assert now() == "cuda:2"
            raise RuntimeError("in teardown")

        @pytest.fixture(scope="session")
        def never(llm_cell): raise RuntimeError("in setup")

        def test_call(llm_cell, broken): raise RuntimeError("in call")
        def test_setup(llm_cell, never): pass
        """
    )
    result = cards.runpytest(*FLAGS, "--llm-cell=simulated=true", *flags, ".")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "INTERNALERROR" not in result.stdout.str()
    assert fake_simulation.on is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SimulationError("real cards are here"), "real cards are here"),
        (ValueError("a defect"), "E * ValueError: a defect"),
    ],
)
def test_a_machine_that_cannot_be_simulated_is_an_error_of_its_items(
    cards: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, fake_simulation: type, error: Exception, line: str
) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(fake_simulation, "__enter__", refuse)
    cards.makepyfile("def test_cell(llm_cell): pass\ndef test_plain(): pass")
    result = cards.runpytest(*FLAGS, ".")
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines([line])
    assert ("Traceback" in result.stdout.str() or "simulation_plugin.py" in result.stdout.str()) == (
        type(error) is ValueError
    )


def test_checkpoints_are_built_on_the_real_machine(cards: pytest.Pytester) -> None:
    cards.makepyfile(
        """
        import pytest
        from now import now
        from pytest_llmdevice.zoo import checkpoint

        @pytest.fixture(scope="session")
        def llm_checkpoint(llm_cell):
            assert now() is None
            return checkpoint(llm_cell.model)

        def test_cell(llm_checkpoint, llm_cell): assert now() == ("cuda:2" if llm_cell.simulated else None)
        """
    )
    cards.runpytest(*FLAGS, ".").assert_outcomes(passed=3)


real = pytest.mark.skipif(torch.cuda.is_available(), reason="real cards are never shadowed")


@real
def test_the_suite_passes_on_simulated_cards(project: pytest.Pytester, no_cards: object) -> None:
    project.makefile(
        ".toml", cards="models = 'llama'\ndevices = 'cuda:1'\ndtypes = 'float32'\nstrategies = ['to', 'split']\n"
    )
    result = project.runpytest(*FLAGS, "--pyargs", "pytest_llmdevice.suite")
    result.assert_outcomes(passed=2 * (len(vocabulary.checks()) - 1), skipped=1)
    result.stdout.fnmatch_lines(["2 cells: simulated: 2 passed"])


@real
def test_a_loader_that_forgets_the_second_card_fails_on_a_simulated_one(
    project: pytest.Pytester, no_cards: object
) -> None:
    project.makefile(".toml", cards=TWO_CARDS)
    project.makepyfile(
        careless="""
        from transformers import AutoModelForCausalLM

        def load(checkpoint, cell):
            return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.kind).eval()
        """
    )
    project.makeini("[pytest]\npythonpath = .\n")
    result = project.runpytest(*FLAGS, "--llm-target=careless", "--pyargs", "pytest_llmdevice.suite", "-k", "placement")
    result.assert_outcomes(passed=2, failed=1, deselected=3 * len(vocabulary.checks()) - 5)
    result.stdout.fnmatch_lines(["   cell     llama.cuda1.fp32.none.to.sim"])


@real
def test_workers_simulate_what_the_controller_does(
    pytester: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    pytester.makefile(".toml", cards=TWO_CARDS)
    pytester.makepyfile(
        """
        import torch

        def test_cell(llm_cell): assert torch.cuda.device_count() == (2 if llm_cell.simulated else 0)
        def test_tensor(llm_device): assert torch.ones(2, device=llm_device).device == llm_device
        def test_plain(): assert not torch.cuda.is_available()
        """
    )
    result = run_process(*FLAGS, "-n1", ".")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["3 cells: 1 partly run; simulated: 2 partly run"])
