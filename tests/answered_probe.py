"""A probe that has its answer already, so that no process is started to look at this machine once more."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pytest_llmdevice.hardware import Inventory

PLUGIN = "answered"
"""The name of the plugin that `write_plugin` writes."""


class AnsweredProbe:
    """What `hardware.start` returns, with the inventory at hand."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def result(self) -> Inventory:
        return self._inventory

    def close(self) -> None:
        pass


def write_plugin(folder: Path, inventory: Inventory) -> None:
    """Write the plugin with which a pytest process that is started in `folder` takes `inventory` for its machine."""
    (folder / f"{PLUGIN}.py").write_text(
        f"""\
import sys

sys.path.append({str(Path(__file__).parent)!r})

from answered_probe import AnsweredProbe
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.plugin import session

session.start = lambda _timeout: AnsweredProbe(Inventory.from_json({inventory.to_json()!r}))
""",
        "utf-8",
    )
