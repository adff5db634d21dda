"""How long the default matrix takes through the suite: from an empty cache, a warm one, and with simulated cards."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pairs import seconds

COMMAND = ["--llm-matrix", "-q", "-p", "no:cacheprovider", "--pyargs", "pytest_llmdevice.suite"]


def main() -> None:
    """Print the seconds of each run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"LLMDEVICE_CACHE": str(folder / "cache")}
        print(f"empty cache, serial:  {seconds(COMMAND, folder, environment):.1f} s")
        print(f"warm cache, serial:   {seconds(COMMAND, folder, environment):.1f} s")
        print(f"warm cache, -n 2:     {seconds([*COMMAND, '-n', '2'], folder, environment):.1f} s")
        simulated_on = [*COMMAND, "-n", "2", "--llm-simulate", "cuda:2"]
        print(f"the same, two cards:  {seconds(simulated_on, folder, environment):.1f} s")


if __name__ == "__main__":
    main()
