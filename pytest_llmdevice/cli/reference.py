"""Implements `llmdevice reference`, which writes the reference pages of the documentation from the code."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(short_help="the reference pages of the documentation")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs/reference"),
    show_default=True,
    help="the folder of the pages",
)
@click.option("--check", is_flag=True, help="write nothing; exit with 1 when a page is not what would be written")
def command(output: Path, check: bool) -> None:
    """Write a page each on the checks, options, matrix files, axes, hints and registry entries.

    The pages are made from what is built in and from what the pytest plugin declares.
    """
    from pytest_llmdevice.cli.reference_pages import pages

    stale = [name for name, text in pages().items() if not _is(output / name, text)]
    if check:
        for name in stale:
            click.echo(f"{output / name}: not what `llmdevice reference` writes", err=True)
        sys.exit(int(bool(stale)))
    output.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (output / name).write_text(pages()[name], "utf-8", newline="\n")
        click.echo(f"{output / name}: written")


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text("utf-8") == text
