"""Every command line in the docs and the ready workflows is one that pytest and `llmdevice` understand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pytest_llmdevice.cli.command import command

ROOT = Path(__file__).parents[2]

FILES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github" / "examples").rglob("*.yml")),
]

LINE = re.compile(r"^\s*(?:\$ |- run: |- |run: |jobs=\$\()?(?P<line>(?:llmdevice|pytest) [^`]*?)\)?$")


def lines() -> Iterator[tuple[str, str]]:
    for path in FILES:
        for line in path.read_text().splitlines():
            if found := LINE.match(line):
                yield path.name, found["line"]


COMMANDS = [(name, line) for name, line in lines() if "..." not in line]


def words(line: str) -> list[str]:
    """The words of a shell line, up to what the shell does with its result."""
    line = re.split(r" \|\| | && | > |#", line)[0]
    # What a variable or an array holds is not known here.
    line = re.sub(r'"?\$\{\w+\[@\]\}"?|\$(?:HARDWARE|times|baseline)\b', "", line)
    return shlex.split(re.sub(r"\$\w+", "1", line))


def test_there_are_commands_to_look_at() -> None:
    assert len({name for name, _ in COMMANDS}) >= 5
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize(
    ("name", "line"), COMMANDS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(COMMANDS)]
)
def test_a_documented_command_is_understood(name: str, line: str, pytestconfig: pytest.Config) -> None:
    program, *arguments = words(line)
    if program == "pytest":
        ours = {word.partition("=")[0] for word in arguments if word.startswith("--llm-")}
        unknown = {flag for flag in ours if not hasattr(pytestconfig.option, flag[2:].replace("-", "_"))}
        assert not unknown, f"{name}: {sorted(unknown)}"
        return
    with click.Context(command) as context:
        found = command.get_command(context, arguments[0])
        assert found is not None, f"{name}: no command {arguments[0]}"
        rest = arguments[1:]
        while isinstance(found, click.Group):
            found = found.get_command(context, rest.pop(0))
            assert found is not None
        # Raises for options that there are not, and for values that an option does not take.
        found.make_context(found.name, rest, parent=context)
