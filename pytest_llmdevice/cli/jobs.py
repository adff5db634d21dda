"""Divides the cells of a matrix into CI jobs, and writes the pytest options that select each job's cells."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pytest_llmdevice.cli.selection import expressions
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.shards import estimates, shards

Options: TypeAlias = tuple[str, ...]
"""Options of pytest: flags and values as separate strings."""


@dataclass(frozen=True, slots=True)
class Service:
    """The limits of a CI service.

    Attributes:
        name: its name.
        jobs: the maximum number of jobs of one matrix.
        selector: the maximum length of one job's options, in characters.
        output: the maximum length of all output, in characters.
    """

    name: str
    jobs: int
    selector: int
    output: int


GITHUB: Final = Service("GitHub Actions", 256, 8_000, 500_000)
"""GitHub allows 256 jobs of a matrix, and 1 MB for the outputs of a job, counted in UTF-16. A command on Windows may
have 8,191 characters."""

GITLAB: Final = Service("GitLab", 200, 120, 500_000)
"""GitLab allows 200 jobs of a `parallel:matrix`. All values of a job are in its name, and GitLab silently makes no
pipeline with a name of more than 255 characters (gitlab-org/gitlab issue 584573); the matrix and the runner need the
rest of them."""

_GITLAB_NAME: Final = 255

ANYWHERE: Final = Service("a plan", 1_000, 8_000, 10_000_000)


@dataclass(frozen=True, slots=True)
class Group:
    """The cells of one kind of hardware.

    Attributes:
        hardware: the kind: `"cpu"`, `"cuda"`, ...
        labels: the labels of the machines that run them.
        simulate: the simulated machine; empty for real devices.
        cells: the cells.
    """

    hardware: str
    labels: tuple[str, ...]
    simulate: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a plan.

    Attributes:
        name: its unique name, which can also name an artifact: `"cuda-1-of-3"`.
        group: the group of its cells.
        cells: the cells that it runs.
        selector: the pytest options that select exactly these cells.
        seconds: their estimated time; None without recorded times.
    """

    name: str
    group: Group
    cells: tuple[Cell, ...]
    selector: Options
    seconds: float | None

    def options(self, matrix: str) -> str:
        """The options that pytest needs in addition to `--llm-matrix`, for the variable `PYTEST_ADDOPTS`."""
        simulate = ("--llm-simulate", self.group.simulate) if self.group.simulate else ()
        return shlex.join(("--llm-matrix-file", matrix, *self.selector, *simulate))


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs of a matrix.

    Attributes:
        matrix: the name of the matrix as the user gave it.
        jobs: the jobs, in the order of the groups.
        notes: where the plan deviates from what the user asked for.
    """

    matrix: str
    jobs: tuple[Job, ...]
    notes: tuple[str, ...]


def plan_jobs(
    matrix: str,
    groups: Sequence[Group],
    seconds: Mapping[str, float],
    service: Service,
    *,
    jobs: int | None = None,
    minutes: float | None = None,
) -> Plan:
    """Divide the cells of `groups` into jobs.

    Args:
        matrix: the name of the matrix as the user gave it.
        groups: the cells, each in one group.
        seconds: cell id -> recorded time; without times all cells count the same.
        service: the service that will run the jobs.
        jobs: the number of jobs; one for each group if neither this nor `minutes` is given.
        minutes: the time that the cells of a job should take; needs times.

    Raises:
        ConfigurationError: more jobs than the service allows, fewer than groups, or no times for `minutes`.
    """
    weights = {
        group.hardware: math.fsum(estimates(group.cells, seconds).values()) if seconds else len(group.cells)
        for group in groups
    }
    notes: list[str] = []
    if minutes is not None:
        if not seconds:
            raise ConfigurationError("--minutes needs to know how long cells take: add --times with recorded results")
        counts = {
            group.hardware: min(max(1, math.ceil(weights[group.hardware] / 60 / minutes)), len(group.cells))
            for group in groups
        }
        if sum(counts.values()) > service.jobs:
            notes.append(
                f"{sum(counts.values())} jobs would be needed, and {service.name} takes at most {service.jobs}: "
                "each takes longer than was asked for"
            )
            counts = _distribute(groups, weights, service.jobs)
    else:
        counts = _distribute(groups, weights, _job_count(jobs, groups, service))
        if jobs is not None and sum(counts.values()) < jobs:
            notes.append(f"{sum(counts.values())} jobs, not {jobs}: no job would be left without a cell")
    every = [cell for group in groups for cell in group.cells]
    all_jobs: list[Job] = []
    for group in groups:
        group_jobs, note = _group_jobs(group, every, counts[group.hardware], seconds, service)
        all_jobs += group_jobs
        notes += [note] if note else []
    return Plan(matrix, tuple(all_jobs), tuple(notes))


def github_matrix(plan: Plan) -> dict[str, Any]:
    """The plan as a value for `strategy.matrix` of a GitHub Actions job."""
    return {
        "include": [
            {
                "name": job.name,
                "runs-on": list(job.group.labels),
                "hardware": job.group.hardware,
                "simulate": job.group.simulate,
                "cells": shlex.join(job.selector),
                "options": job.options(plan.matrix),
                "count": len(job.cells),
                "seconds": None if job.seconds is None else round(job.seconds, 1),
            }
            for job in plan.jobs
        ]
    }


def gitlab_matrix(plan: Plan) -> list[dict[str, str]]:
    """The plan as a value for `parallel:matrix` of a GitLab job.

    Raises:
        ConfigurationError: a kind of hardware has several labels, of which a job can take only one from a variable;
            or the name of a job is too long.
    """
    for job in plan.jobs:
        if len(job.group.labels) != 1:
            raise ConfigurationError(
                f"--label {job.group.hardware}={','.join(job.group.labels)}: GitLab takes one tag for each kind of "
                f"hardware here, as in --label {job.group.hardware}=gpu"
            )
    entries = [
        {"LLM_JOB": job.name, "LLM_RUNNER": job.group.labels[0], "PYTEST_ADDOPTS": job.options(plan.matrix)}
        for job in plan.jobs
    ]
    for variables in entries:
        name = f"llm: [{', '.join(variables.values())}]"
        if len(name) > _GITLAB_NAME:
            raise ConfigurationError(
                f"the name of the job would be {name!r}, and GitLab silently makes no pipeline with a name of more "
                f"than {_GITLAB_NAME} characters: shorten the path of the matrix or the label"
            )
    return entries


def _job_count(jobs: int | None, groups: Sequence[Group], service: Service) -> int:
    if jobs is None:
        return len(groups)
    if jobs > service.jobs:
        raise ConfigurationError(f"--jobs {jobs}: {service.name} takes at most {service.jobs} jobs of a matrix")
    if jobs < len(groups):
        kinds = ", ".join(group.hardware for group in groups)
        raise ConfigurationError(
            f"--jobs {jobs}: each kind of hardware needs a job of its own ({kinds}): ask for {len(groups)} or more, or "
            "leave a kind out with --without"
        )
    return jobs


def _distribute(groups: Sequence[Group], weights: Mapping[str, float], jobs: int) -> dict[str, int]:
    """The number of jobs of each group: one, and every further job goes to the group whose jobs are longest."""
    counts = {group.hardware: 1 for group in groups}
    sizes = {group.hardware: len(group.cells) for group in groups}
    for _ in range(jobs - len(groups)):
        growing = [kind for kind, count in counts.items() if count < sizes[kind]]
        if not growing:
            break
        longest = max(growing, key=lambda kind: weights[kind] / counts[kind])
        counts[longest] += 1
    return counts


def _group_jobs(
    group: Group, every: Sequence[Cell], count: int, seconds: Mapping[str, float], service: Service
) -> tuple[list[Job], str]:
    """The jobs of one group, and a note if balancing them by time would need selectors that are too long."""
    whole: Options = ("--llm-cell", f"kind={group.hardware}")
    shard_cells = shards(group.cells, count, seconds)
    selectors: list[Options] = [whole]
    note = ""
    if seconds and count > 1:
        selectors = _axis_selectors(shard_cells, every)
        note = _too_long(selectors, group, service)
    if count > 1 and (not seconds or note):
        # `--llm-shard` divides cells by number, without times.
        shard_cells = shards(group.cells, count)
        selectors = [(*whole, "--llm-shard", f"{index}/{count}") for index in range(1, count + 1)]
    times = estimates(group.cells, seconds) if seconds else None
    jobs = [
        Job(
            f"{group.hardware}-{index}-of-{count}",
            group,
            tuple(cells),
            selector,
            math.fsum(times[cell] for cell in cells) if times is not None else None,
        )
        for index, (cells, selector) in enumerate(zip(shard_cells, selectors, strict=True), 1)
    ]
    return jobs, note


def _too_long(selectors: Sequence[Options], group: Group, service: Service) -> str:
    lengths = [len(shlex.join(selector)) for selector in selectors]
    # The output has the selector twice, also in the options, and the job's name and labels.
    if max(lengths) <= service.selector and 2 * sum(lengths) + 500 * len(lengths) <= service.output:
        return ""
    return (
        f"{group.hardware}: balanced by number of cells, not by their times: selectors of {max(lengths):,} characters, "
        f"{sum(lengths):,} in all, are longer than {service.name} takes"
    )


def _axis_selectors(shard_cells: Sequence[Sequence[Cell]], every: Sequence[Cell]) -> list[Options]:
    return [
        tuple(part for expression in expressions(cells, every) for part in ("--llm-cell", expression))
        for cells in shard_cells
    ]
