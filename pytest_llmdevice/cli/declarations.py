"""Collects what the pytest plugin declares: its flags, ini keys and markers.

The plugin is found in the way in which pytest finds it, by its entry point: no module of the command line imports it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Final, Self

ENTRY_POINT: Final = ("pytest11", "llmdevice")
"""Group and name of the plugin's entry point in `pyproject.toml`."""


@dataclass(frozen=True)
class Flag:
    """A flag of the command line.

    Attributes:
        name: with its dashes.
        metavar: what stands for its value; empty where it takes none.
        dest: the attribute of `config.option`, which is also the name of its ini key where it has one.
        help: what it does.
    """

    name: str
    metavar: str
    dest: str
    help: str


@dataclass
class Declarations:
    """Stands in for pytest's parser, option group and configuration, and keeps what is declared.

    Attributes:
        flags: in their order.
        ini_keys: name -> what it is.
        markers: signature -> what it does.
    """

    flags: list[Flag] = field(default_factory=list)
    ini_keys: dict[str, str] = field(default_factory=dict)
    markers: dict[str, str] = field(default_factory=dict)

    def getgroup(self, *_: str) -> Self:
        """The group of options: this."""
        return self

    def addoption(self, name: str, *, dest: str, help: str, metavar: str = "", **_: Any) -> None:  # noqa: A002
        """Keep a flag."""
        self.flags.append(Flag(name, metavar, dest, help.replace("%%", "%")))

    def addini(self, name: str, help: str, **_: Any) -> None:  # noqa: A002
        """Keep an ini key."""
        self.ini_keys[name] = help

    def addinivalue_line(self, name: str, line: str) -> None:
        """Keep a marker, the only thing that the plugin declares in this way."""
        assert name == "markers"
        signature, _, purpose = line.partition("): ")
        self.markers[f"{signature})"] = purpose


def declared() -> Declarations:
    """What the plugin declares."""
    group, name = ENTRY_POINT
    (entry,) = entry_points(group=group, name=name)
    plugin = entry.load()
    found = Declarations()
    plugin.pytest_addoption(found)
    plugin.flags.add_markers(found)
    return found
