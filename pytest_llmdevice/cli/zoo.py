"""The command `llmdevice zoo`, which lists the models that are built here, what each exercises, and its traits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from pytest_llmdevice.cli.cells import json_option
from pytest_llmdevice.cli.layout import paragraph
from pytest_llmdevice.cli.output import say, say_json


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list.

    Attributes:
        name: as a matrix spells it.
        table: `"family"`, `"architecture"` or `"trait"`.
        exercises: what it has that others have not.
        cannot: why no checkpoint of it can be built; empty where one can.
    """

    name: str
    table: str
    exercises: str
    cannot: str = ""


@click.command(short_help="the models that are built here: families, architectures, traits")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List what a matrix can name as a model: families, every architecture of the installed transformers, and traits.

    With NAMEs only those, where a name may be a pattern such as 'qwen*'.
    """
    from fnmatch import fnmatchcase

    from pytest_llmdevice.errors import ConfigurationError
    from pytest_llmdevice.matrix.suggest import unknown_name

    found = list(_entries())
    for name in names:
        pattern = name.replace("_", "-")
        if not any(fnmatchcase(entry.name, pattern) for entry in found):
            raise ConfigurationError(unknown_name("model or trait", name, [entry.name for entry in found]))
    if names:
        patterns = [name.replace("_", "-") for name in names]
        found = [entry for entry in found if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]
    if as_json:
        say_json([asdict(entry) for entry in found])
        return
    for lines in _sections(found):
        say(lines)


def _entries() -> Iterator[Entry]:
    from pytest_llmdevice.matrix.registry import current
    from pytest_llmdevice.zoo.exceptions import CANNOT
    from pytest_llmdevice.zoo.families import Family
    from pytest_llmdevice.zoo.kinds import exercised
    from pytest_llmdevice.zoo.traits import Trait

    families = current().of(Family)
    yield from (Entry(family.name, "family", family.notes) for family in families.values())
    cannot = {name.replace("_", "-"): why for name, why in CANNOT.items()}
    for name, words in exercised().items():
        if name not in families:
            yield Entry(name, "architecture", words, cannot.get(name, ""))
    yield from (Entry(trait.name, "trait", trait.description) for trait in current().of(Trait).values())


_HEADS = {
    "family": "Families, which `*` stands for:",
    "architecture": "Architectures, which `all` stands for, with the families among them:",
    "trait": "Traits, written behind a model: llama~no-pad~right",
}


def _sections(found: list[Entry]) -> Iterator[list[str]]:
    for table, head in _HEADS.items():
        entries = [entry for entry in found if entry.table == table]
        if not entries:
            continue
        width = min(max(len(entry.name) for entry in entries), 24) + 2
        lines = [head]
        for entry in entries:
            text = f"cannot be built: {entry.cannot}" if entry.cannot else entry.exercises
            first = f"  {entry.name:<{width}}"
            lines += paragraph(text, first=first, rest=" " * (width + 2)) if text else [first.rstrip()]
        yield [*lines, ""]
