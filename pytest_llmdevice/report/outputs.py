"""Reads which report `FORMAT:PATH` asks for, and writes it to that file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from pytest_llmdevice.errors import ConfigurationError, ResultsError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.files import replace_file

Format: TypeAlias = Literal["md", "html", "json"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)

SUMMARY: Final = "GITHUB_STEP_SUMMARY"
"""The variable that has the file to which a job on GitHub appends what it has to say."""


@dataclass(frozen=True, slots=True)
class Output:
    """A report that is asked for: the format, and the file."""

    format: Format
    path: Path

    @classmethod
    def parse(cls, text: str) -> Output:
        """The output that `FORMAT:PATH` asks for.

        Raises:
            ConfigurationError: it is not of that form, or the format is unknown.
        """
        name, colon, path = text.partition(":")
        if not colon or not path.strip():
            raise ConfigurationError(
                f"report {text!r}: give a format and a path, as in {'md' if name not in FORMATS else name}:PATH "
                f"(formats: {', '.join(FORMATS)})"
            )
        return cls(format_named(name, text), Path(path))

    def write(self, report: ReportModel, environment: Mapping[str, str] = os.environ) -> None:
        """Write `report` in one step, or append it to the summary of a job on GitHub.

        Raises:
            ResultsError: the file cannot be written.
        """
        text = render(self.format, report)
        if is_summary(self.path, environment):
            before = self.path.stat().st_size if self.path.is_file() else 0
            try:
                with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"\n{text}")
            except OSError as error:
                with suppress(OSError):
                    # Half a report could be read as another one.
                    os.truncate(self.path, before)
                raise ResultsError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        else:
            replace_file(self.path, text.encode("utf-8", "backslashreplace"))


def format_named(name: str, given: str = "") -> Format:
    """The format `name`.

    Raises:
        ConfigurationError: there is no such format.
    """
    for known in FORMATS:
        if name == known:
            return known
    raise ConfigurationError(f"report {given or name!r}: {unknown('format', name, FORMATS)}")


def is_summary(path: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `path` is the file of the summary of a job on GitHub, to which earlier steps may have written."""
    summary = environment.get(SUMMARY)
    return bool(summary) and path.absolute() == Path(str(summary)).absolute()


def render(name: Format, report: ReportModel) -> str:
    """`report` in a format, as text that ends in a line end."""
    # Each brings libraries of its own.
    match name:
        case "md":
            from pytest_llmdevice.report.markdown import markdown

            return markdown(report)
        case "html":
            from pytest_llmdevice.report.html import html

            return html(report)
        case "json":
            from pytest_llmdevice.report.document import document
            from pytest_llmdevice.text import json_text

            return json_text(document(report)) + "\n"
