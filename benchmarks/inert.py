"""What the plugin costs a project that has it installed and does not use it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pairs import ratio

TESTS = "import pytest\n\n@pytest.mark.parametrize('number', range(200))\ndef test_nothing(number): pass\n"


def main() -> None:
    """Print the ratio of a run with the plugin to one without it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text(TESTS)
        quiet = ["-q", "-p", "no:cacheprovider"]
        print("with / without the plugin:", ratio(quiet, [*quiet, "-p", "no:llmdevice"], folder, runs=15))


if __name__ == "__main__":
    main()
