"""Implements `llmdevice plan`: plans the jobs with which a CI service runs a matrix on several machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pytest_llmdevice.cli.cells import (
    assumed,
    cards_option,
    cells_on,
    json_option,
    load_matrix,
    simulate_option,
    simulated_machines,
)
from pytest_llmdevice.cli.layout import paragraph, table
from pytest_llmdevice.cli.output import say, say_json
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import kinds as known_kinds
from pytest_llmdevice.text import json_text, plural

if TYPE_CHECKING:
    from pytest_llmdevice.cli.jobs import Group, Plan
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.simulation.profiles import Profile

LABELS: Final = {
    "github": {"cpu": ("ubuntu-latest",), "mps": ("macos-latest",)},
    "gitlab": {"cpu": ("saas-linux-small-amd64",), "mps": ("saas-macos-medium-m1",)},
}
"""Labels of machines that the services offer; other kinds of hardware need the user's own runners."""


@click.command()
@click.option("--matrix", "name", default="default", metavar="NAME_OR_PATH", help="The matrix to run.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="How many jobs; one a kind of hardware by default."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="As many jobs as it takes for the cells of each to be done in M minutes; needs --times.",
)
@click.option(
    "--times",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RESULTS",
    help="Results of earlier runs, folder or file, or a baseline: jobs are balanced by the times of their cells.",
)
@simulate_option
@cards_option
@click.option(
    "--label", "labels", multiple=True, metavar="KIND=LABEL[,LABEL]", help="Which runners have this hardware."
)
@click.option("--without", multiple=True, metavar="KIND", help="Plan no job for this kind of hardware.")
@click.option("--github", "form", flag_value="github", help="Print the JSON for strategy.matrix of GitHub Actions.")
@click.option("--gitlab", "form", flag_value="gitlab", help="Print the JSON for parallel:matrix of GitLab.")
@json_option
def command(
    name: str,
    jobs: int | None,
    minutes: float | None,
    times: tuple[Path, ...],
    simulate: tuple[str, ...],
    cards: tuple[str, ...],
    labels: tuple[str, ...],
    without: tuple[str, ...],
    form: str | None,
    as_json: bool,
) -> None:
    """Deal the cells of a matrix out to jobs of a CI service, a group of jobs for each kind of hardware.

    Each job has the options by which pytest chooses exactly its cells; they are meant for PYTEST_ADDOPTS.
    """
    from pytest_llmdevice.cli import jobs as planning

    if jobs is not None and minutes is not None:
        raise ConfigurationError("--jobs and --minutes exclude each other: one follows from the other")
    if as_json and form:
        raise ConfigurationError(f"--json and --{form} exclude each other")
    services = {"github": planning.GITHUB, "gitlab": planning.GITLAB}
    service = services.get(form or "", planning.ANYWHERE)
    cells = cells_on(load_matrix(name), assumed(cards, simulate))
    groups, left_out = _groups(cells, _labels(labels), without, simulate, form or "github")
    plan = planning.plan_jobs(name, groups, _recorded(times), service, jobs=jobs, minutes=minutes)
    for note in (*left_out, *plan.notes):
        say(f"note: {note}", err=True)
    if as_json:
        say_json(_data(plan))
    elif form:
        data = planning.github_matrix(plan) if form == "github" else planning.gitlab_matrix(plan)
        text = json_text(data, indent=None)
        if len(text) > service.output:
            raise ConfigurationError(
                f"the plan has {len(text):,} characters, and {service.name} takes {service.output:,}: "
                "ask for fewer jobs"
            )
        click.echo(text)
    else:
        say(_lines(plan))


def _recorded(paths: Sequence[Path]) -> dict[str, float]:
    """Cell id -> recorded seconds, from results or from baselines, which are usually in the repository."""
    if not paths:
        return {}
    from statistics import median

    from pytest_llmdevice.results.baseline import read_baseline
    from pytest_llmdevice.results.shards import recorded_seconds
    from pytest_llmdevice.results.store import read

    seconds: dict[str, float] = {}
    for path in filter(_is_baseline, paths):
        lines = read_baseline(path).cells.values()
        seconds |= {line.cell: median(line.seconds) for line in lines if line.seconds}
    results = [path for path in paths if not _is_baseline(path)]
    # Results override baselines, because they are usually newer.
    seconds |= recorded_seconds(read(results)) if results else {}
    if not seconds:
        raise ConfigurationError(f"--times {paths[0]}: no cell ran there, so there is no time of one")
    return seconds


def _is_baseline(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return re.match(rb'\s*\{\s*"type"\s*:\s*"baseline"', file.readline(200)) is not None
    except OSError:
        # A folder, or an error that the reader of results reports.
        return False


def _labels(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    labels: dict[str, tuple[str, ...]] = {}
    for text in texts:
        kind, _, names = text.partition("=")
        given = tuple(name.strip() for name in names.split(",") if name.strip())
        if kind not in known_kinds():
            raise ConfigurationError(f"--label {text!r}: {unknown('kind of hardware', kind, known_kinds())}")
        if not given:
            raise ConfigurationError(f"--label {text!r} has no label: write {kind}=LABEL")
        if kind in labels:
            raise ConfigurationError(f"--label {text!r}: {kind} is given twice; join labels with a comma")
        labels[kind] = given
    return labels


def _groups(
    cells: Sequence[Cell],
    labels: dict[str, tuple[str, ...]],
    without: Sequence[str],
    simulate: Sequence[str],
    form: str,
) -> tuple[list[Group], list[str]]:
    """A group for each kind of hardware in the matrix, and notes on cells that are left out."""
    from pytest_llmdevice.cli.jobs import Group

    profiles: dict[str, Profile] = {profile.kind: profile for profile in simulated_machines(simulate).profiles}
    kinds = tuple(dict.fromkeys(cell.kind for cell in cells))
    for flag, named in (("--label", labels), ("--without", without), ("--simulate", profiles)):
        for kind in named:
            if kind not in kinds:
                raise ConfigurationError(f"{flag} {kind}: {unknown('kind of hardware in the matrix', kind, kinds)}")
    for kind, profile in profiles.items():
        if kind in labels:
            raise ConfigurationError(f"--simulate {profile}: --label says where real {kind} hardware is: choose one")
    groups, notes = [], []
    for kind in kinds:
        own = tuple(cell for cell in cells if cell.kind == kind)
        if kind in without:
            notes.append(f"{kind}: {plural(len(own), 'cell')} in no job (--without)")
            continue
        simulated = [text for text in simulate if simulated_machines([text]).profiles[0].kind == kind]
        # A simulated machine runs on any CPU.
        runner = "cpu" if simulated else kind
        known = {**LABELS[form], **labels}
        fallback = ("self-hosted", kind) if form == "github" else (kind,)
        groups.append(Group(kind, known.get(runner, fallback), simulated[0] if simulated else "", own))
    if not groups:
        raise ConfigurationError("--without leaves no hardware")
    return groups, notes


def _data(plan: Plan) -> dict[str, Any]:
    return {
        "matrix": plan.matrix,
        "notes": list(plan.notes),
        "jobs": [
            {
                "name": job.name,
                "labels": list(job.group.labels),
                "hardware": job.group.hardware,
                "simulate": job.group.simulate,
                "options": job.options(plan.matrix),
                "seconds": job.seconds,
                "cells": [cell.id for cell in job.cells],
            }
            for job in plan.jobs
        ],
    }


def _lines(plan: Plan) -> Iterator[str]:
    cells = sum(len(job.cells) for job in plan.jobs)
    yield f"plan of the matrix {plan.matrix}: {plural(cells, 'cell')} in {plural(len(plan.jobs), 'job')}"
    rows = [["job", "cells", "minutes", "models", "runs on"]]
    for job in plan.jobs:
        minutes = "-" if job.seconds is None else f"{job.seconds / 60:.1f}"
        models = len({cell.model for cell in job.cells})
        where = " ".join(job.group.labels) + (f", simulating {job.group.simulate}" if job.group.simulate else "")
        rows.append([job.name, str(len(job.cells)), minutes, str(models), where])
    yield from table(rows, numbers=(1, 2, 3))
    yield ""
    yield "Each job: PYTEST_ADDOPTS='OPTIONS' pytest --llm-matrix --llm-results results"
    for job in plan.jobs:
        yield from paragraph(job.options(plan.matrix), first=f"  {job.name}: ", rest=" " * 6)
