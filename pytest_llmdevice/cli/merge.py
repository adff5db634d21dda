"""The command `llmdevice merge`, which puts the results of several machines into one folder."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("merge")
@click.argument("inputs", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, help="The folder to write; made where it is missing.")
@click.option("--force", is_flag=True, help="Let the folder hold other things: they stay, and other runs there count.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
def command(inputs: tuple[Path, ...], output: Path, *, force: bool, as_json: bool) -> None:
    """Merge the results in INPUTS, each a folder that --llm-results wrote or a file of one.

    Files are copied as they are. Of a cell that ran on real hardware anywhere that counts; of contradicting outcomes
    the worse.
    """
    from pytest_llmdevice.cli.output import say, say_json
    from pytest_llmdevice.report.merge_text import merge_data, merge_lines
    from pytest_llmdevice.report.model import ReportModel
    from pytest_llmdevice.results.collecting import without_collection
    from pytest_llmdevice.results.merge import merge

    with without_collection():
        report = ReportModel.of(merge(inputs, output, force=force))
    if as_json:
        say_json({"output": str(output), **merge_data(report)})
        return
    say(merge_lines(report))
    say(f"written to {output}")
