"""Writes results as one HTML page that needs nothing else: no network, no server, no library.

The page is a Jinja2 template with what words can say, a script that draws the rest from data inside the page, and a
policy that lets the browser run that one script, apply that one style and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.report import page_sections
from pytest_llmdevice.report.changes import comparison_line
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.page_data import conflict_sides, page_data, script_json
from pytest_llmdevice.results.transitions import NAMES
from pytest_llmdevice.text import harmless

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from jinja2 import Template

_FOLDER: Final = "templates"

STYLES: Final = ("colours.css", "page.css", "matrix.css", "detail.css")
SCRIPTS: Final = (
    "elements.js",
    "format.js",
    "data.js",
    "state.js",
    "filters.js",
    "matrix.js",
    "table.js",
    "charts.js",
    "measures.js",
    "detail.js",
    "changes.js",
    "page.js",
)
"""In the order in which they need each other; together they are one module."""


def html(report: ReportModel, *, title: str = "Model loading matrix") -> str:
    """The page for `report`; to be written as UTF-8."""
    style, script = _joined("styles", STYLES), _joined("scripts", SCRIPTS)
    results, comparison = report.results, report.comparison
    return _template().render(
        title=title,
        style=style,
        script=script,
        policy=_policy(style, script),
        data=script_json(page_data(report)),
        report=report,
        details=page_sections.details(report),
        facts=page_sections.facts(results),
        shares=page_sections.shares(report),
        targets=len(results.targets),
        machines=page_sections.machines(results),
        conflicts=[(conflict, conflict_sides(conflict)) for conflict in results.conflicts],
        notes=results.notes,
        comparison=comparison,
        comparison_line="" if comparison is None else comparison_line(comparison),
        changes=[] if comparison is None else [(name, comparison.counts[name]) for name in NAMES],
    )


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    folder: Traversable = files(__package__) / _FOLDER
    return folder.joinpath(*name.split("/")).read_text("utf-8")


def _joined(folder: str, names: Sequence[str]) -> str:
    return "\n" + "\n".join(_read(f"{folder}/{name}") for name in names)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters["web"] = is_web
    quoted = environment.filters["urlencode"]
    environment.filters["urlencode"] = lambda values: quoted({key: _shown(value) for key, value in values.items()})
    return environment.from_string(_read("page.html.jinja"))


def _shown(value: Any) -> Any:
    # What was declared to be safe is the page's own: its style, its script, and data that `script_json` wrote.
    return harmless(value, lines=True) if type(value) is str else value


def is_web(address: str) -> bool:
    """Whether `address` may be made a link: http or https, and nothing that a browser would read as another scheme."""
    return address.startswith(("http://", "https://")) and not any(
        character.isspace() or ord(character) < ord(" ") for character in address
    )
