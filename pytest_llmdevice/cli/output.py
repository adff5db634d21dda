"""Writes what the commands say: each line harmless for a terminal and for the log of a CI service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from pytest_llmdevice.text import harmless, json_text


def say(lines: str | Iterable[str] = "", *, err: bool = False) -> None:
    """Write one line, or several: a line end within one of them is written as an escape."""
    for line in (lines,) if isinstance(lines, str) else lines:
        click.echo(harmless(line), err=err)


def say_json(data: Any) -> None:
    """Write `data` as strict JSON to the standard output."""
    click.echo(json_text(data))
