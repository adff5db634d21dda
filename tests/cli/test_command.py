"""The group of all subcommands: help, version, errors, exit codes, and what is imported for each."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.calling import call
from pytest_llmdevice.cli.command import SUBCOMMANDS

HEAVY = ("torch", "transformers", "accelerate", "rich", "pydantic", "jinja2", "pytest", "psutil")


def run(code: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], text=True)


def test_help_lists_every_subcommand_in_the_order_of_the_work() -> None:
    called = call("--help")

    assert called.code == 0
    places = [called.out.index(f"\n  {name} ") for name in SUBCOMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_that_fits_a_terminal(name: str) -> None:
    called = call(name, "--help")

    assert called.code == 0
    assert f"llmdevice {name}" in called.out.replace("command", "llmdevice", 1)
    assert max(map(len, called.out.splitlines())) <= 80


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert call("--version").out == f"llmdevice, version {version('pytest-llmdevice')}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "--help"], ["doctor", "--help"]])
def test_version_and_help_import_nothing_heavy(arguments: list[str]) -> None:
    found = run(
        "import sys, io, contextlib\n"
        "from pytest_llmdevice.cli.command import command\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    command({arguments!r}, standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    assert found.strip() == "[]"


def test_listing_cells_imports_no_library_of_models() -> None:
    found = run(
        "import sys, io, contextlib\n"
        "from pytest_llmdevice.cli.command import command\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    command(['plan', '--matrix', 'cuda', '--json'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'transformers', 'rich', 'pytest') if name in sys.modules])"
    )

    assert found.strip() == "[]"


def test_an_unknown_subcommand_gets_the_nearest_one_and_exit_code_2() -> None:
    called = call("plam")

    assert called.code == 2
    assert "unknown command 'plam'; did you mean 'plan'?" in called.err


def test_what_the_user_got_wrong_is_one_message_without_the_usage() -> None:
    called = call("matrix", "show", "relase")

    assert called.code == 2
    assert called.out == ""
    assert called.err.startswith("Error: unknown matrix 'relase'")
    assert "did you mean 'release'?" in called.err
    assert "Usage" not in called.err


def test_an_unknown_option_is_explained_by_click_with_exit_code_2() -> None:
    called = call("plan", "--githup")

    assert called.code == 2
    assert "--github" in called.err


def test_a_reader_that_has_seen_enough_is_no_error_to_show() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_llmdevice.cli", "matrix", "show", "cpu", "--ids"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        # Before anything is written, sooner than `head` would.
        child.stdout.close()
        errors = child.stderr.read()

    assert errors == b""
