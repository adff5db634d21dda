"""What bugs raise on cards: loaders and generators of the corpus and the systems, on the stand-in and simulated.

From the repository's root, in an environment with the CUDA build:

    python -m tests.simulation.ground_truth.executed.loud

and what the simulation does otherwise, with any build:

    python -m tests.simulation.ground_truth.executed.loud --compare
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice.model.wrappers import core

from . import record
from .libraries import without_cudnn, written
from .loud_subjects import Subject, subjects
from .run import NVIDIA, in_child

LOUD: Final = Path(__file__).with_name("loud.json")

LONGEST: Final = 60
"""Seconds of a bug."""

_HOST: Final = (
    "bitsandbytes' kernel is handed an address of the host, which a card ends the process for and the stand-in's "
    "kernels, which do nothing, do not read"
)
KNOWN: Final = {
    "quantization-state-on-the-cpu llama.cuda1.bf16.nf4.device-map": _HOST,
    "infolens LeftOnTheCpu qwen3.cuda0.fp16.int8.auto": _HOST,
}
"""The bugs that the simulation refuses otherwise, each with the reason."""


class _Enough(Exception):
    """A generation has had more passes than it needs."""


PASSES: Final = 8


@contextmanager
def _few_passes(model: Any) -> Iterator[None]:
    """End a generation after some passes: over the stand-in nothing that is computed says that it is finished."""
    count = 0

    def look(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > PASSES:
            raise _Enough

    hook = core(model).register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def raised(subject: Subject) -> dict[str, str]:
    """What the target raises while it loads, runs forward and generates on the cards here; empty for nothing."""
    import torch
    from checkpoints import checkpoint
    from corpus.case import prompts

    from pytest_llmdevice.inference.generation import generate_with, inputs_for

    steps: dict[str, str] = {}
    model: Any = None
    target, cell = subject.target(), subject.cell

    @contextmanager
    def step(name: str) -> Iterator[None]:
        steps[name] = ""
        try:
            yield
        except _Enough:
            steps[name] = ""
        except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
            steps[name] = f"{type(error).__name__}: {error}"

    with warnings.catch_warnings(), without_cudnn():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        with step("load"):
            model = target.load(checkpoint(cell.model), cell)
        if steps["load"]:
            return steps
        given = [list(prompt) for prompt in prompts(cell.model)][:2]
        with step("forward"), torch.no_grad():
            model(**inputs_for(model, given[:1]))
        with step("generate"), _few_passes(model):
            generate_with(target, model, given, 2)
    return steps


def believed(steps: Mapping[str, str]) -> dict[str, str | None]:
    """The steps, None for what a library of NVIDIA's or the lack of values may have decided, and for what follows."""
    found: dict[str, str | None] = {}
    for name, text in steps.items():
        unseen = None in found.values() or NVIDIA.search(text) or "OutOfMemory" in text or "multiplication" in text
        found[name] = None if unseen else text
    return found


def record_rows(out: Path) -> None:
    """Run each bug in a child of this process, which runs over the stand-in, and write the rows."""
    from . import libraries

    rows = []
    listed = list(subjects())
    for model in {subject.cell.model: None for subject in listed}:
        # So that no child has to import it.
        with suppress(Exception):
            libraries.prepare(model)
    for subject in listed:
        steps, died = in_child(lambda subject=subject: raised(subject), LONGEST)  # type: ignore[misc]
        rows.append({"bug": subject.name, **({"died": died} if steps is None else {"steps": believed(steps)})})
    out.write_text(written(record.header(), rows), encoding="utf-8")


def read(path: Path = LOUD) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The header, and the rows by the names of the bugs and cells."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["header"], {row["bug"]: row for row in data["rows"]}


def differing(row: Mapping[str, Any], subject: Subject) -> list[str]:
    """Where the simulation raises something else than the CUDA build, step by step."""
    from pytest_llmdevice.simulation import simulate

    with simulate(subject.machine):
        found = raised(subject)
    steps = row.get("steps", {})
    return [
        f"{name}: CUDA {steps[name] or 'nothing'}, simulated {found.get(name) or 'nothing'}"
        for name in steps
        if steps[name] is not None and steps[name] != found.get(name)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=LOUD, help="where the rows go")
    parser.add_argument("--compare", action="store_true", help="ask the simulation")
    options = parser.parse_args(arguments)
    if options.compare:
        _, rows = read(options.out)
        count = 0
        for subject in subjects():
            for line in differing(rows.get(subject.name, {}), subject):
                count += 1
                known = f" (known: {KNOWN[subject.name]})" if subject.name in KNOWN else ""
                sys.stdout.write(f"{subject.name}: {line}{known}\n")
        sys.stdout.write(f"{count} steps of {len(rows)} bugs differ\n")
        return bool(count)

    def write() -> None:
        record_rows(options.out)

    return record.over_the_standin(__spec__.name, ["--out", str(options.out)], write)


if __name__ == "__main__":
    sys.exit(main())
