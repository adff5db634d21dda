"""Says in words what the runs behind some results were: their machines, commits, times and versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.run_header import BUILTIN, Run
from pytest_llmdevice.text import listed, plural

TARGETS: Final = {BUILTIN: "builtin, the loader of pytest-llmdevice itself: no code of a project was tested"}
"""What there is to say of a target beside its name."""


def target_text(results: MergedResults) -> str:
    """The code under test, which a reader must know before all else: `"target mine:load"`."""
    targets = results.targets or dict.fromkeys(run.target for run in results.runs)
    names = [TARGETS.get(target, target) for target in targets]
    return f"{'target' if len(names) == 1 else 'targets'} {'; '.join(names)}" if names else ""


def origin_text(results: MergedResults) -> str:
    """Which runs these are: `"matrix default, 3 runs from 2026-11-25 to 2026-11-26"`."""
    matrices = listed(dict.fromkeys(run.matrix.name for run in results.runs))
    days = sorted({run.started[:10] for run in results.runs})
    when = f"of {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}" if days else ""
    return f"matrix {matrices}, {plural(len(results.runs), 'run')} {when}".rstrip()


def environment_lines(runs: Iterable[Run]) -> list[str]:
    """A line for each machine and its versions: `"Linux x86_64, Some CPU, cuda:0 H100; torch 2.13.0 (2 runs)"`."""
    counts: Counter[str] = Counter()
    for run in runs:
        machine = run.machine
        cards = [f"{device.spec} {device.name}".strip() for device in machine.devices]
        simulated_on = [f"simulated {name}" for name in run.simulated]
        system = f"{machine.system} {machine.architecture}".strip()
        where = ", ".join(part for part in (system, machine.cpu, *cards, *simulated_on) if part)
        counts["; ".join(part for part in (where, versions_text(run)) if part) or "an unknown machine"] += 1
    return [line + (f" ({times} runs)" if times > 1 else "") for line, times in counts.items()]


def machine_text(run: Run) -> str:
    """The hardware of `run`, the cards first: `"NVIDIA H100, Server CPU"`."""
    cards = dict.fromkeys(device.name or device.spec for device in run.machine.devices if device.spec != "cpu")
    return ", ".join([*cards, run.machine.cpu or run.machine.architecture or "unknown processor"])


def commit_text(run: Run) -> str:
    """The commit, short, and whether the tree had changes; empty where there is no repository."""
    if run.commit is None:
        return ""
    return f"{run.commit.id[:10]}{' with changes' if run.commit.dirty else ''}"


def versions_text(run: Run) -> str:
    """The versions of `run` in one line: `"python 3.11.7, torch 2.13.0"`."""
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())


def time_text(moment: str) -> str:
    """A time in ISO 8601 as people write it, `"2026-11-25 10:00 UTC"`; the text as it is where it's something else."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{parsed.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if parsed.tzinfo else moment
