"""Ways in which a test of a cell, a cell or a run can end, each planted in a small project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MATRIX: Final = """
models = "llama"
devices = "cpu"
dtypes = "float32"
strategies = "to"
[require]
models = "llama"
checks = ["loads", "mode"]
"""

SUITE: Final = ("--pyargs", "pytest_llmdevice.suite", "-k", "test_loads or test_mode")

LOADER: Final = """
from pytest_llmdevice import BuiltinTarget
from pytest_llmdevice.errors import UnsupportedByLibrary

class Loader(BuiltinTarget):
    def load(self, checkpoint, cell):
        {before}
        model = super().load(checkpoint, cell)
        {after}
        return model
"""


@dataclass(frozen=True)
class Way:
    """How something ends.

    Attributes:
        name: in words, as the table has it.
        conftest: what the project's conftest does. Its hooks about tests are not asked of tests of the suite, which lie
            elsewhere.
        plugin: what another plugin does.
        before, after: what its loader does before and after it loads.
        arguments: what pytest is told beside the suite.
        chosen: what of the suite is run.
        own_process: whether it needs a process of its own.
    """

    name: str
    conftest: str = ""
    plugin: str = ""
    before: str = "pass"
    after: str = "pass"
    arguments: tuple[str, ...] = ()
    chosen: tuple[str, ...] = SUITE
    own_process: bool = False


def _hook(text: str) -> str:
    return f"import pytest\n\n{text}\n"


def _marked(mark: str, where: str = "'test_mode' in item.name") -> str:
    return _hook(
        "def pytest_collection_modifyitems(items):\n    for item in items:\n"
        f"        if {where}: item.add_marker({mark})\n"
    )


_LIMIT: Final = "--llm-cell-timeout=1"
_ISOLATED: Final = "--llm-isolate=cell"
_KILLED: Final = "import os; os.kill(os.getpid(), 9)"

WAYS: Final[tuple[Way, ...]] = (
    Way("all that the matrix requires ran and passed"),
    # What a user may ask for
    Way("`-k` leaves a check out", chosen=(*SUITE[:3], "test_loads")),
    Way("`-m` leaves all checks out", arguments=("-m", "nothing")),
    Way("`--setup-plan`", arguments=("--setup-plan",)),
    Way("`--setup-only`", arguments=("--setup-only",)),
    Way("`-x` after a failure", before="raise OSError('no')", arguments=("-x",)),
    Way("`--llm-shard` leaves the cell to another machine", arguments=("--llm-shard=2/2",)),
    Way("a part of the plugin is switched off", arguments=("-p", "no:llmdevice-recorded")),
    # What a conftest or another plugin may do to a test
    Way(
        "a conftest takes a check away",
        _hook(
            "def pytest_collection_modifyitems(items):\n"
            "    items[:] = [item for item in items if item.originalname != 'test_mode']"
        ),
    ),
    Way("a conftest skips a check", _marked("pytest.mark.skip(reason='slow')")),
    Way("a conftest skips all checks", _marked("pytest.mark.skip(reason='slow')", "True")),
    Way("a conftest skips in a fixture", _hook("@pytest.fixture(autouse=True)\ndef _now(): pytest.skip('not today')")),
    Way(
        "a conftest expects a check to fail, and it does",
        _marked("pytest.mark.xfail(reason='known')"),
        after="model.train()",
    ),
    Way("a conftest expects a check to fail, and does not run it", _marked("pytest.mark.xfail(run=False)")),
    Way("a conftest expects a check to fail, and it passes", _marked("pytest.mark.xfail(strict=True)")),
    Way("a plugin answers `pytest_pyfunc_call`", plugin=_hook("def pytest_pyfunc_call(pyfuncitem): return True")),
    Way("a plugin answers `pytest_runtest_protocol`", plugin=_hook("def pytest_runtest_protocol(item): return True")),
    Way(
        "a plugin puts another function in the place of a test",
        plugin=_hook("def pytest_runtest_setup(item): item.runtest = lambda: None"),
    ),
    Way(
        "a plugin makes a pass of a failure",
        plugin=_hook(
            "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n"
            "    report.outcome = 'passed'\n    return report"
        ),
        after="model.train()",
    ),
    Way(
        "a plugin makes a skip of a failure",
        plugin=_hook(
            "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n"
            "    if report.failed: report.outcome, report.longrepr = 'skipped', ('a.py', 1, 'Skipped: known')\n"
            "    return report"
        ),
        after="model.train()",
    ),
    Way(
        "a plugin ends the run with status 0",
        plugin=_hook("@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionfinish(session): session.exitstatus = 0"),
        after="model.train()",
    ),
    Way(
        "the fixture `llm_cell` is overridden to another cell",
        _hook(
            "from dataclasses import replace\n\n@pytest.fixture(scope='session')\ndef llm_cell(request):\n"
            "    return replace(request.param, dtype='bfloat16')"
        ),
    ),
    Way(
        "the fixture `llm_checkpoint` is overridden to another model",
        _hook(
            "@pytest.fixture(scope='session')\ndef llm_checkpoint():\n    from pytest_llmdevice.zoo import checkpoint\n"
            "    return checkpoint('gpt2')"
        ),
    ),
    Way("a fixture of a test fails", _hook("@pytest.fixture(autouse=True)\ndef _now(): raise OSError('no')")),
    Way(
        "the teardown of a test fails",
        _hook("@pytest.fixture(autouse=True)\ndef _now():\n    yield\n    raise OSError('no')"),
    ),
    Way(
        "a plugin stops the session",
        plugin=_hook("def pytest_runtest_logfinish(): pytest.exit('no', returncode=0)"),
    ),
    # What the code under test may do
    Way("the target raises", before="raise OSError('no')"),
    Way("the target raises a `BaseException` of its own", before="raise type('Odd', (BaseException,), {})('odd')"),
    Way("the target raises `KeyboardInterrupt`", before="raise KeyboardInterrupt"),
    Way("the target calls `sys.exit(0)`", before="raise SystemExit(0)"),
    Way("the target calls `pytest.skip`", before="import pytest; pytest.skip('not here')"),
    Way("the target calls `pytest.xfail`", before="import pytest; pytest.xfail('known')"),
    Way("the target calls `pytest.exit`", before="import pytest; pytest.exit('enough', returncode=0)"),
    Way("the target says that a library cannot do it", before="raise UnsupportedByLibrary('not in this version')"),
    Way("the target returns no model", after="model = None"),
    Way("a check finds something", after="model.train()"),
    Way("the target hangs until its time limit", before="__import__('time').sleep(60)", arguments=(_LIMIT,)),
    # How a process may end
    Way("`os._exit(0)`", before="import os; os._exit(0)", own_process=True),
    Way("`exit(0)` of C", before="import ctypes; ctypes.CDLL(None).exit(0)", own_process=True),
    Way("a segmentation fault", before="import ctypes; ctypes.string_at(0)", own_process=True),
    Way("SIGKILL", before=_KILLED, own_process=True),
    Way(
        "`os._exit(0)` in a worker of xdist",
        before="import os; os._exit(0)",
        arguments=("-n1",),
        own_process=True,
    ),
    Way("SIGKILL with `--llm-isolate cell`", before=_KILLED, arguments=(_ISOLATED,)),
    Way("`os._exit(0)` with `--llm-isolate cell`", before="import os; os._exit(0)", arguments=(_ISOLATED,)),
)
