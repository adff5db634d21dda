"""Implements `llmdevice matrix`: lists the cells of a matrix, validates its file, and lists the shipped ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pytest_llmdevice.cli.cells import assumed, cards_option, json_option, load_matrix, simulate_option
from pytest_llmdevice.cli.layout import UNBROKEN, labelled, paragraph, percent
from pytest_llmdevice.cli.output import say, say_json
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.text import plural

if TYPE_CHECKING:
    from pytest_llmdevice.cli.overview import Overview, Rule
    from pytest_llmdevice.hardware import Inventory


@click.group()
def command() -> None:
    """The cells of a matrix, and what is wrong with its file."""


@command.command(short_help="the cells, and what the rules are about")
@click.argument("name_or_path", default="default")
@simulate_option
@cards_option
@click.option("--probe", is_flag=True, help="Use the cards of this machine, which takes some seconds to find out.")
@click.option("--ids", is_flag=True, help="Print the ids of the cells and nothing else.")
@json_option
def show(
    name_or_path: str, simulate: tuple[str, ...], cards: tuple[str, ...], probe: bool, ids: bool, as_json: bool
) -> None:
    """List the cells of a matrix, and sum up its rules: NAME_OR_PATH is a shipped name or a TOML file."""
    from pytest_llmdevice.cli.overview import overview

    matrix = load_matrix(name_or_path)
    inventory = _probed(cards, simulate) if probe else assumed(cards, simulate)
    result = overview(name_or_path, matrix, inventory)
    if as_json:
        say_json(result.to_json())
        return
    say(cell.id for cell in result.cells)
    if not ids:
        say()
        say(_summary(result))
        with_star = [spec for spec in matrix.devices if spec.endswith("*")]
        if with_star and not (probe or cards or simulate):
            say()
            note = f"{' '.join(with_star)}: counted as one card each; --cards cuda=2 or --probe shows more"
            say(paragraph(note))


@command.command(short_help="whether a file is good, or all that is wrong with it")
@click.argument("names", metavar="[NAME_OR_PATH]...", nargs=-1)
@json_option
def validate(names: tuple[str, ...], as_json: bool) -> None:
    """Say of each matrix that it is good, or everything that is wrong with it; all shipped ones by default.

    The exit code is 1 when there is a problem. Notes are on tables that are about no cell: allowed, and often a slip.
    """
    from pytest_llmdevice.cli.validation import validate_matrix
    from pytest_llmdevice.matrix.files import shipped

    results = [validate_matrix(name) for name in names or shipped()]
    if as_json:
        say_json([result.to_json() for result in results])
    else:
        for result in results:
            say(result.lines())
    if any(result.problems for result in results):
        sys.exit(1)


@command.command(name="list", short_help="the shipped matrices")
@json_option
def list_command(as_json: bool) -> None:
    """List the shipped matrices."""
    from pytest_llmdevice.matrix.files import folder, read, shipped

    descriptions = {name: str(read(folder() / f"{name}.toml").get("description", "")) for name in shipped()}
    if as_json:
        say_json(descriptions)
    else:
        say(labelled(descriptions.items(), indent=0))


def _probed(cards: tuple[str, ...], simulate: tuple[str, ...]) -> Inventory:
    from pytest_llmdevice.cli.cells import simulated_machines
    from pytest_llmdevice.hardware import start

    if cards:
        raise ConfigurationError("--probe and --cards exclude each other: the cards are found out or said")
    machines = simulated_machines(simulate)
    with start() as process:
        inventory = process.result()
    if inventory.failure:
        raise ConfigurationError(f"--probe: the hardware probe failed: {inventory.failure}")
    return machines.beside(inventory)


def _summary(overview: Overview) -> Iterator[str]:
    share = f", {percent(len(overview.cells), overview.product)} of the product" if overview.product else ""
    yield from paragraph(f"matrix {overview.name}: {plural(len(overview.cells), 'cell')}{share}")
    if overview.description:
        yield from paragraph(overview.description, first="  ")
    yield ""
    yield f"  {overview.product:>7,}  cells in the product of the axes"
    yield f"  {overview.product - overview.allowed:>7,}  of them excluded"
    if overview.coverage == "pairwise":
        chosen = len(overview.cells) - overview.included
        saved = f"{percent(chosen, overview.allowed)} of the {overview.allowed:,} left"
        yield from paragraph(
            f"cells in which every pair of values occurs on each kind of device ({saved})", first=f"  {chosen:>7,}  "
        )
    if overview.included:
        yield f"  {overview.included:>7,}  more because [[include]] asks for them"
    yield ""
    yield "Cells with each value"
    yield from labelled(
        (axis, _counts(values)) for axis, values in overview.axes.items() if list(values) != ["default"]
    )
    if overview.excluded:
        yield ""
        yield "Excluded, of the product"
        for rule in overview.excluded:
            yield from _rule(rule, rule.reason)
    if overview.expected:
        yield ""
        yield "Expected, of the cells"
        for rule in overview.expected:
            yield from _rule(rule, _expectation(rule), rule.details["source"])
    if overview.required is not None:
        yield ""
        yield "Required: each of these in a cell that passed on real hardware"
        yield from labelled((key, " ".join(values)) for key, values in overview.required.items())


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{value}{UNBROKEN}{count:,}" for value, count in values.items())


def _rule(rule: Rule, sentence: str, source: str = "") -> Iterator[str]:
    from pytest_llmdevice.cli.overview import format_patterns

    yield from paragraph(format_patterns(rule.patterns), first=f"  {rule.cells:>7,}  ")
    for text in (sentence, source):
        if text:
            yield from paragraph(text, first=" " * 11)


def _expectation(rule: Rule) -> str:
    checks = ", ".join(rule.details["checks"] or ["every check"])
    versions = ", ".join(f"{name} {spec}" for name, spec in rule.details["versions"].items())
    condition = f" (with {versions})" if versions else ""
    if rule.details["xfail"]:
        return f"{checks} will fail{condition}: {rule.reason}"
    dense, tolerance = rule.details["dense"], rule.details["tolerance"]
    said = [f"left dense on purpose: {', '.join(dense)}"] if dense else []
    said += [f"agreement within {tolerance:g}"] if tolerance is not None else []
    said += [f"random state {rule.details['random_state']}"] if rule.details["random_state"] else []
    return f"{'; '.join(said)}{condition}"
