"""The command `llmdevice show`, which shows results as a grid in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click


@click.command(short_help="the grid of results in the terminal")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--grid", metavar="ROWS/COLUMNS", help="axes of rows and columns: 'model,strategy/device,dtype'")
@click.option("--baseline", type=click.Path(path_type=Path), help="say what changed since it was written")
@click.option("--worst", type=click.IntRange(min=0), default=3, show_default=True, help="problems to show in full")
@click.option("--width", type=click.IntRange(min=1), help="columns of the terminal, found out if not given")
@click.option("--json", "as_json", is_flag=True, help="everything as JSON, as 'llmdevice report -f json' writes it")
def command(
    results: tuple[Path, ...], grid: str | None, baseline: Path | None, worst: int, width: int | None, as_json: bool
) -> None:
    """Show what became of each cell, from files and folders that --llm-results wrote.

    A cell that ran several times counts once: real hardware before simulated, the latest run, and where machines
    contradict each other the worse outcome.
    """
    from pytest_llmdevice.cli.output import say_json
    from pytest_llmdevice.cli.reading import read_report
    from pytest_llmdevice.report.document import document
    from pytest_llmdevice.report.spec import parse_grid
    from pytest_llmdevice.report.terminal import terminal_lines

    if grid is not None:
        # Before reading, which can take seconds.
        parse_grid(grid)
    report = read_report(results, baseline)
    if as_json:
        say_json(document(report))
        return
    lines = terminal_lines(
        report,
        width=width or shutil.get_terminal_size().columns,
        colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        unicode=(sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf"),
        grid=grid,
        worst=worst,
    )
    # They are harmless already, and have colours.
    click.echo("\n".join(lines))
