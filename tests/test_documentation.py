"""The documentation says what is: its links, its examples, and the bounds of dependencies."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from forked_run import run_forked
from packaging.requirements import Requirement
from packaging.version import Version

from pytest_llmdevice.matrix.vocabulary import checks
from pytest_llmdevice.plugin import hookspecs

ROOT = Path(__file__).parents[1]

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tests").rglob("README.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]

LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
BLOCK = re.compile(r"```(?P<language>\w+)\n# (?P<name>[\w./-]+)\n(?P<text>.*?)```", re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in LINK.finditer(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        assert target.exists(), f"{page.name}: {link['path']}"
        if link["anchor"]:
            assert link["anchor"] in anchors(target.read_text("utf-8")), f"{page.name}: {link[0]}"


def test_the_readme_example_prints_what_the_readme_says(pytester: pytest.Pytester) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    files = {block["name"]: block["text"] for block in BLOCK.finditer(readme)}
    assert set(files) == {"llm_target.py", "pyproject.toml", "llm-matrix.toml"}
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    options = ("--llm-matrix", "-p", "no:cacheprovider", "-p", "no:xdist")
    result = run_forked(pytester.path, *options, "--llm-cell", "model=llama", "-k", "loads or dtypes or reload")
    printed = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    finding, run = (block.splitlines() for block in printed[:2])
    # The finding whole; of the whole run, what the one model and the three checks have of it.
    missing = [line for line in finding if line != "..." and line not in result.outlines]
    assert missing == []
    for line in (
        "llm target llm_target",
        "target llm_target",
        "in all: device cpu, quantization none, strategy to",
        "model  fp32 bf16",
        "1 problem",
        "   cell     llama.cpu.bf16.none.to",
        "   where    model.embed_tokens.weight",
    ):
        assert line in run
        assert line in result.outlines
    # The float32 cell passes, though `reload` loads a bfloat16 one in between: that is the other cell's fault.
    assert "llama  .    F" in run
    assert result.parseoutcomes()["failed"] == 1


def test_the_test_command_of_the_readme_is_the_one_that_ci_runs() -> None:
    command = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1]
    assert f"$ {command}\n" in (ROOT / "README.md").read_text("utf-8")


def test_the_lower_bounds_are_the_versions_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = (text for texts in project["optional-dependencies"].values() for text in texts)
    declared = {
        requirement.name: Version(bound.version)
        for requirement in map(Requirement, (*project["dependencies"], *extras))
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    lines = (ROOT / "tests" / "lowest-constraints.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert set(declared) == set(tested)
    # 4.57 and 4.57.0 are equal, 4.57 and 4.57.1 are not.
    assert {name: bound for name, bound in declared.items() if bound != Version(tested[name])} == {}


@pytest.mark.parametrize("name", ["conftest.py", "own.toml"])
def test_the_quotes_of_the_extension_example_are_in_its_files(name: str) -> None:
    page = (ROOT / "docs" / "extending.md").read_text("utf-8").partition("## An example")[2]
    language = "toml" if name.endswith(".toml") else "python"
    (quote,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert quote in (ROOT / "tests" / "examples" / "extension" / name).read_text("utf-8")


def test_the_first_example_of_extending_is_that_of_the_hook() -> None:
    page = (ROOT / "docs" / "extending.md").read_text("utf-8")
    quote = page.partition("```python\n")[2].partition("```")[0]
    documented = inspect.cleandoc(hookspecs.pytest_llm_register.__doc__ or "")
    assert [line for line in quote.splitlines() if line and f"    {line}" not in documented.splitlines()] == []


def test_the_checks_of_the_readme_are_checks() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## What is checked")[2].partition("## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} <= set(checks())
