"""The command `llmdevice report`, which writes results as Markdown, a page, or JSON."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_llmdevice.errors import ConfigurationError


@click.command(short_help="a report of results: Markdown, a page, JSON")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--report", "reports", multiple=True, metavar="FORMAT:PATH", help="'html:report.html'; repeat for more")
@click.option("-f", "--format", "name", metavar="FORMAT", help="md, html or json; by the name of the file if left out")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the file; standard output if left out")
@click.option("--json", "as_json", is_flag=True, help="the same as -f json")
@click.option("--baseline", type=click.Path(path_type=Path), help="say what changed since it was written")
def command(
    results: tuple[Path, ...],
    reports: tuple[str, ...],
    name: str | None,
    output: Path | None,
    as_json: bool,
    baseline: Path | None,
) -> None:
    """Write what became of each cell, from files and folders that --llm-results wrote.

    Without an option, Markdown to standard output. What is written to the file of $GITHUB_STEP_SUMMARY is appended.
    """
    from pytest_llmdevice.cli.output import say
    from pytest_llmdevice.cli.reading import read_report
    from pytest_llmdevice.report.outputs import Output, format_named, render

    outputs = [Output.parse(text) for text in reports]
    if as_json and name not in {None, "json"}:
        raise ConfigurationError(f"--json and -f {name} contradict each other; give one of them")
    chosen = format_named("json" if as_json else name or _by_ending(output))
    if output is not None:
        outputs.append(Output(chosen, output))
    elif chosen == "html":
        raise ConfigurationError("-f html needs a file: give -o report.html")
    report = read_report(results, baseline)
    for wanted in outputs:
        wanted.write(report)
        say(f"{wanted.path}: written as {wanted.format}", err=True)
    if output is None and (not outputs or name or as_json):
        click.echo(render(chosen, report), nl=False)


def _by_ending(output: Path | None) -> str:
    from pytest_llmdevice.report.outputs import FORMATS

    ending = output.suffix.removeprefix(".").lower() if output is not None else ""
    return ending if ending in FORMATS else "md"
