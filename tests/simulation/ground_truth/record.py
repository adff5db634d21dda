"""Asks a real card, or writes the documented rows.

From the repository's root, on a machine with a card, everything in some minutes, into files beside this one:

    python -m tests.simulation.ground_truth.record

the rows alone, or those that need no card:

    python -m tests.simulation.ground_truth.record tests/simulation/ground_truth/recorded-CARD.json
    python -m tests.simulation.ground_truth.record --documented
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_llmdevice.simulation.profiles import PROFILES

from . import card_run, table
from .cases import all_cases
from .executed import chunks
from .executed.run import loaded
from .observe import Observation, observe


def driver() -> str:
    """The driver's version, or why it is unknown."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"unknown: {error}"


def header() -> dict[str, Any]:
    import torch

    return {
        "card": torch.cuda.get_device_name(0),
        "capability": list(torch.cuda.get_device_capability(0)),
        "cards": torch.cuda.device_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def record() -> dict[str, Observation | str]:
    """Every case on the cards that are here."""
    import torch

    here = torch.cuda.device_count()
    seen: dict[str, Observation | str] = {}
    for case in all_cases():
        if case.cards > here:
            seen[case.id] = f"needs {case.cards} cards, here is {here}"
            continue
        seen[case.id] = observe(case)
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            # After an error inside a kernel nothing that follows can be trusted.
            raise SystemExit(f"{case.id} has broken the card's context: {error}") from error
    return seen


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "out", nargs="?", type=Path, help="where to write the rows of the declared table alone; all, if left out"
    )
    parser.add_argument("--documented", action="store_true", help="write the declared rows; no card is needed")
    options = parser.parse_args(arguments)
    if options.documented:
        (options.out or table.DOCUMENTED).write_text(table.documented(), encoding="utf-8")
        return
    import torch

    if not torch.cuda.is_available() or torch.version.cuda is None:
        sys.exit("No NVIDIA card can be used by this PyTorch: the ground truth is recorded on a real one.")
    from pytest_llmdevice.simulation import active

    if active() is not None:
        sys.exit("The cards here are simulated: the ground truth is recorded on a real one.")
    if loaded():
        sys.exit("The CUDA runtime here is a stand-in without cards: the ground truth is recorded on a real one.")
    if options.out is not None:
        declared(options.out)
        return
    everything(table.FOLDER)


def declared(out: Path) -> None:
    """Record the declared table in the file `out`, and say where the card disagrees with what is known from less."""
    seen = record()
    out.write_text(table.recorded(header(), seen), encoding="utf-8")
    skipped = sum(isinstance(observation, str) for observation in seen.values())
    sys.stdout.write(f"{len(seen) - skipped} cases recorded, {skipped} skipped\n")
    for line in table.disagreements(out.parent):
        sys.stdout.write(f"{line}\n")


def everything(folder: Path) -> None:
    """Record the declared table and the executed cases, run the matrix of cards for real and simulated, and compare.

    Writes `recorded-CARD.json`, `executed/recorded-CARD.json` and `card-CARD.md` in `folder`.
    """
    about = header()
    name = re.sub(r"[^a-z0-9]+", "-", str(about["card"]).lower()).strip("-")
    with tempfile.TemporaryDirectory() as work:
        text, count, broken = chunks.recorded(about, Path(work))
        executed = folder / "executed" / f"recorded-{name}.json"
        executed.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{count} executed cases recorded, {broken} broke the card's context\n")
        lines = chunks.disagreements(executed)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        workers = min(4, os.cpu_count() or 1)
        real = card_run.run(Path(work, "real"), workers=workers)
        axes = card_run.axes_of(Path(work, "real"))
        simulated = card_run.run(Path(work, "simulated"), simulate=profile_of(about), workers=workers)
    different = card_run.apart(real, simulated)
    head = [
        f"# {about['card']}: what a card has shown",
        "",
        f"PyTorch {about['torch']}, CUDA {about['cuda']}, driver {about['driver']}, {about['date']}.",
        f"{count} executed cases were asked again on the card; {len(lines)} differ.",
        f"{len(real)} checks on the card, {len(simulated)} simulated; {len(different)} have another outcome.",
    ]
    errors = card_run.errors(real, axes), card_run.errors(simulated, axes)
    page = folder / f"card-{name}.md"
    page.write_text(card_run.page(head, different, *errors), encoding="utf-8")
    sys.stdout.write(f"{len(different)} checks have another outcome than simulated: {page}\n")
    declared(folder / f"recorded-{name}.json")


def profile_of(about: Mapping[str, Any]) -> str:
    """What to simulate beside this card: its own profile, or the commonest with as many cards."""
    same = next((profile.name for profile in PROFILES if profile.card == about["card"]), "cuda")
    return f"{same}:{about['cards']}"


if __name__ == "__main__":
    main()
