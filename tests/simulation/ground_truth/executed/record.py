"""Asks PyTorch's CUDA build, over the stand-in, and writes the rows.

In an environment with the CUDA build (`tox -e executed`), from the repository's root:

    python -m tests.simulation.ground_truth.executed.record
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

from ..cases import all_cases
from ..declare import Case
from . import autocast_samples, extra, generator_calls, module_samples, rows
from .build import CannotBuild, build
from .run import executed, loaded
from .samples import OTHER_DTYPES, Sample, cases, pairs_of_dtypes, samples, without_numbers

FILLINGS = ("0", "1")
"""The bytes that a card's memory holds before anything is written, in the first run and in the second."""


DECLARED = "declared"
"""What `--only` calls the cases of the declared table."""


def start(module: str, arguments: Sequence[str], filling: str = FILLINGS[0]) -> int:
    """Run `module` with `arguments` over the stand-in, with the given bytes in its memory; returns its exit status.

    Raises:
        CannotBuild: this is no CUDA build, or the stand-in cannot be built.
    """
    import torch

    if torch.version.cuda is None:
        raise CannotBuild(
            f"PyTorch {torch.__version__} is no CUDA build. An index that offers a CPU build under the same version "
            "is asked first where it is configured; pip install --index-url https://pypi.org/simple torch==... asks "
            "PyPI alone, whose wheel for Linux is the CUDA build"
        )
    into = Path(os.environ.get("TOX_ENV_DIR", tempfile.gettempdir())) / "standin"
    standin = build(Path(torch.__file__).parent, into)
    environment = {**os.environ, **standin.environment(), "STANDIN_FILLING": filling, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return os.spawnve(os.P_WAIT, sys.executable, command, environment)


def over_the_standin(module: str, arguments: Sequence[str], write: Callable[[], None]) -> int:
    """What the command of a module ends with: it writes where it runs over the stand-in, or starts itself there.

    Returns:
        The exit status; one sentence and 1 where the stand-in cannot be built.
    """
    if loaded():
        write()
        return 0
    try:
        return start(module, arguments)
    except CannotBuild as error:
        sys.exit(str(error))


def operators(only: Sequence[str]) -> Iterator[tuple[str, Case]]:
    """Each case of `rows.json` and the operator it is of; those of the declared table are of none."""
    if not only or DECLARED in only:
        for case in all_cases():
            yield "", case
    if not only or extra.OPERATOR in only:
        yield from _of(extra.samples())
    names = [name for name in only if name not in (DECLARED, extra.OPERATOR)]
    if names or not only:
        yield from _of(samples(names))


def _firsts(
    made: Callable[[Sample], Iterator[Case]],
) -> Callable[[Sequence[str]], Iterator[tuple[str, Case]]]:
    """What gives the cases that are made of what models call, and of the first sample of each operator."""

    def asked(only: Sequence[str]) -> Iterator[tuple[str, Case]]:
        names = [name for name in only if name != extra.OPERATOR]
        found = samples(names) if names or not only else iter(())
        for sample in chain(extra.samples() if not only or extra.OPERATOR in only else (), found):
            if sample.first:
                yield from ((sample.operator, case) for case in made(sample))

    return asked


def _of(found: Iterable[Sample], dtypes: Sequence[str] = OTHER_DTYPES) -> Iterator[tuple[str, Case]]:
    for sample in found:
        for case in cases(sample, dtypes):
            yield sample.operator, case


GROUPS: Mapping[str, tuple[Path, Callable[[Sequence[str]], Iterator[tuple[str, Case]]]]] = {
    "operators": (rows.EXECUTED, operators),
    "modules": (
        rows.EXECUTED.with_name("modules.json"),
        lambda only: _of(module_samples.samples(only), module_samples.DTYPES),
    ),
    "autocast": (rows.EXECUTED.with_name("autocast.json"), autocast_samples.cases),
    "meta": (rows.EXECUTED.with_name("meta.json"), _firsts(without_numbers)),
    "pairs": (rows.EXECUTED.with_name("pairs.json"), _firsts(pairs_of_dtypes)),
    "generators": (rows.EXECUTED.with_name("generators.json"), lambda _: _of(generator_calls.samples())),
}
"""Group -> the file of its rows, and what gives its cases: all, or those of some operators."""


def write_cases(group: str, only: Sequence[str], out: Path) -> None:
    """Write all cases, one to a line: the databases use a card where there is one, and a child could not then."""
    listed: dict[str, tuple[str, Case]] = {}
    for operator, case in GROUPS[group][1](only):
        listed.setdefault(case.id, (operator, case))
    with out.open("w", encoding="utf-8") as lines:
        for operator, case in listed.values():
            lines.write(json.dumps([operator, case.id, case.operands, case.code]) + "\n")


def ask(asked: Path, out: Path) -> None:
    """Run all cases in this process's children, and write what each did, one to a line."""
    import torch

    # What kernels for `meta` import takes longer than most cases: no child should have to.
    torch.nn.functional.mse_loss(torch.ones(1, device="meta"), torch.ones(1, device="meta"))
    operators, listed = [], []
    for line in asked.read_text(encoding="utf-8").splitlines():
        operator, name, operands, code = json.loads(line)
        operators.append(operator)
        listed.append(Case(name, operands, code, None, "", values=False))
    with out.open("w", encoding="utf-8") as lines:
        for operator, (case, seen) in zip(operators, executed(listed), strict=True):
            lines.write(json.dumps(rows.raw(operator, case, seen)) + "\n")


LIBRARIES = ("transformers", "accelerate", "bitsandbytes", "torchao", "optimum-quanto")


def header() -> dict[str, Any]:
    """The versions of what was asked, and what the cards are."""
    import torch

    found = {name: _version(name) for name in LIBRARIES}
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: version for name, version in found.items() if version},
        "cards": 2,
        "capability": [9, 0],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _run(asked: Path, out: Path, filling: str) -> list[dict[str, Any]]:
    if status := start(__spec__.name, ["--ask", str(asked), str(out)], filling):
        sys.exit(status)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def record_group(group: str, only: Sequence[str], out: Path) -> str:
    """Ask about the cases of a group, write the rows to `out`, and say how many there are.

    Raises:
        CannotBuild: as for `start`.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "cases.jsonl")
        write_cases(group, only, listed)
        first = _run(listed, Path(folder, "first.jsonl"), FILLINGS[0])
        # Where nothing was read from a card, nothing depends on what is in it.
        again = {row["id"] for row in first if row["reads"]}
        lines = listed.read_text(encoding="utf-8").splitlines(keepends=True)
        listed.write_text("".join(line for line in lines if json.loads(line)[1] in again), encoding="utf-8")
        second = _run(listed, Path(folder, "second.jsonl"), FILLINGS[1])
    kept, left_out = rows.judged(first, second)
    out.write_text(rows.written(header(), kept, left_out), encoding="utf-8")
    return f"{group}: {len(kept)} rows, {sum(left_out.values())} left out: {dict(left_out)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        help="operators or modules of the databases, `declared` or `extra`; the others are left out",
    )
    parser.add_argument("--out", type=Path, help="where the rows of a single group go")
    parser.add_argument("--ask", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if loaded():
        ask(*options.ask)
        return 0
    for group in options.groups or GROUPS:
        if group not in GROUPS:
            parser.error(f"there is no group {group!r} (valid: {', '.join(GROUPS)})")
        try:
            said = record_group(group, options.only, options.out or GROUPS[group][0])
        except CannotBuild as error:
            sys.exit(str(error))
        sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
