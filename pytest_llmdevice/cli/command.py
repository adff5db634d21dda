"""Defines the group of all subcommands, which are imported on use to keep `--help` and `--version` fast."""

from __future__ import annotations

import errno
import io
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Final

import click

from pytest_llmdevice.errors import LLMDeviceError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.text import harmless

SUBCOMMANDS: Final = {
    "init": "a target and a smallest matrix for the project at hand",
    "doctor": "what is here, what each kind of cell would do, and what to install",
    "matrix": "the cells of a matrix, and what is wrong with its file",
    "zoo": "the models that are built here: families, architectures, traits",
    "plan": "jobs for a CI service, balanced by recorded times",
    "merge": "the results of several machines as one",
    "gate": "whether results are good enough, held against a baseline",
    "report": "a report of results: Markdown, a page, JSON",
    "show": "the grid of results in the terminal",
    "reference": "the reference pages of the documentation",
}
"""Subcommand -> its description. Each is the function `command` of the module with its name."""


class UserError(click.ClickException):
    """An error of the user, shown as one message without a usage line, because the syntax was right."""

    exit_code = 2


class CommandGroup(click.Group):
    """The group of subcommands. Errors of the user are shown as one message, with exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the subcommands, in the order in which they are usually used."""
        del ctx
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of this name; an unknown name is a usage error."""
        if cmd_name not in SUBCOMMANDS:
            ctx.fail(unknown("command", cmd_name, SUBCOMMANDS))
        subcommand = import_module(f"pytest_llmdevice.cli.{cmd_name}").command
        assert isinstance(subcommand, click.Command)
        return subcommand

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand, and turn errors of this package into messages."""
        try:
            return super().invoke(ctx)
        except LLMDeviceError as error:
            raise UserError(harmless(str(error), lines=True)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # Whoever reads has enough, and click ends quietly.
                raise
            if error.filename is None:
                # Of the standard output, which Python would try to write once more at its end.
                sys.stdout = io.StringIO()
            where = error.filename or "the output"
            raise UserError(harmless(f"{where}: cannot be read or written: {error.strerror or error}")) from None
        except click.ClickException as error:
            vars(error)["message"] = harmless(error.message, lines=True)
            raise


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("pytest-llmdevice"), prog_name="llmdevice")
def command() -> None:
    """Matrices of models, devices, dtypes and quantizations, and what runs of them found."""
