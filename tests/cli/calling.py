"""The command line, called in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from pytest_llmdevice.cli.command import command


@dataclass(frozen=True)
class Called:
    """What a call left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, read."""
        return json.loads(self.out)


def call(*arguments: str, columns: int = 80) -> Called:
    """Run `llmdevice` with `arguments`, in a terminal of so many columns; an exception that escapes is raised."""
    result = CliRunner().invoke(command, arguments, catch_exceptions=False, env={"COLUMNS": str(columns)})
    return Called(result.exit_code, result.stdout, result.stderr)
