"""Asks a real card, or writes the documented rows.

From the repository's root:

    python -m tests.simulation.ground_truth.record tests/simulation/ground_truth/recorded-CARD.json
    python -m tests.simulation.ground_truth.record --documented
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import table
from .cases import all_cases
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
        "out", nargs="?", type=Path, help="where to write; documented.json beside this file if left out"
    )
    parser.add_argument("--documented", action="store_true", help="write the declared rows; no card is needed")
    options = parser.parse_args(arguments)
    if options.documented:
        (options.out or table.DOCUMENTED).write_text(table.documented(), encoding="utf-8")
        return
    if options.out is None:
        parser.error("where to? name a file")
    import torch

    if not torch.cuda.is_available() or torch.version.cuda is None:
        sys.exit("No NVIDIA card can be used by this PyTorch: the ground truth is recorded on a real one.")
    from pytest_llmdevice.simulation import active

    if active() is not None:
        sys.exit("The cards here are simulated: the ground truth is recorded on a real one.")
    if loaded():
        sys.exit("The CUDA runtime here is a stand-in without cards: the ground truth is recorded on a real one.")
    seen = record()
    options.out.write_text(table.recorded(header(), seen), encoding="utf-8")
    skipped = sum(isinstance(observation, str) for observation in seen.values())
    sys.stdout.write(f"{len(seen) - skipped} cases recorded, {skipped} skipped\n")
    for line in table.disagreements(options.out.parent):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
