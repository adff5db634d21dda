"""Looks at a project's source for what loads models in it, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Kind = Literal["transformers", "peft", "pipeline", "own"]

KINDS: Final[tuple[Kind, ...]] = ("transformers", "peft", "pipeline", "own")
"""What the code of a project may load: models of transformers, adapters of PEFT, pipelines, models of its own."""

MOST_FILES: Final = 2000

_SKIPPED: Final = frozenset({"tests", "test", "docs", "build", "dist", "node_modules", "venv", "env", "examples"})

_CALLS: Final[dict[str, Kind]] = {
    "pipeline": "pipeline",
    "PeftModel.from_pretrained": "peft",
    "AutoPeftModelForCausalLM.from_pretrained": "peft",
    "PeftModelForCausalLM.from_pretrained": "peft",
    "get_peft_model": "peft",
    "load_state_dict": "own",
    "load_file": "own",
    "from_pretrained": "transformers",
    "load_checkpoint_and_dispatch": "transformers",
}
"""What is called in a function that loads a model -> what it loads, the first that fits."""

PATHS: Final = (
    "checkpoint", "path", "model_path", "model_name_or_path", "model_name", "model_id", "name", "pretrained", "repo_id",
    "folder", "directory", "model",
)  # fmt: skip
DEVICES: Final = ("device", "device_name", "target_device")
DTYPES: Final = ("dtype", "torch_dtype")
MAPS: Final = ("device_map",)


@dataclass(frozen=True)
class Loader:
    """A function that seems to load a model.

    Attributes:
        module: the name by which it is imported.
        function: its name.
        kind: what it loads.
        arguments: what to call it with, as source, or None where an argument that it needs is not understood.
    """

    module: str
    function: str
    kind: Kind
    arguments: tuple[str, ...] | None


def loaders_in(folder: Path) -> list[Loader]:
    """The functions of the project in `folder` that seem to load models, those first that can be called."""
    found = [loader for path in _files(folder) for loader in _loaders(path, folder)]
    return sorted(
        found, key=lambda loader: (loader.arguments is None, not loader.function.startswith("load"), loader.module)
    )


def _files(folder: Path) -> Iterator[Path]:
    count = 0
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if any(part in _SKIPPED or part.startswith(".") or part.endswith("-packages") for part in parts[:-1]):
            continue
        if path.name.startswith("test_") or path.name in {"conftest.py", "setup.py", "llm_target.py"}:
            continue
        count += 1
        if count > MOST_FILES:
            return
        yield path


def _loaders(path: Path, folder: Path) -> Iterator[Loader]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    parts = list(path.relative_to(folder).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "src" else parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if not parts or not all(part.isidentifier() for part in parts):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and (kind := _kind(node)):
            yield Loader(".".join(parts), node.name, kind, _arguments(node))


def _kind(function: ast.FunctionDef) -> Kind | None:
    """What `function` loads, by what it calls; None where it returns nothing, or calls nothing of that kind."""
    if not any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function)):
        return None
    called = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    models = [name for name in called if "Tokenizer" not in name and "Config" not in name and "Processor" not in name]
    for name, kind in _CALLS.items():
        if any(each == name or each.endswith(f".{name}") for each in models):
            return kind
    return None


def _arguments(function: ast.FunctionDef) -> tuple[str, ...] | None:
    """What to call `function` with: by names that say what they are, the checkpoint first where nothing says so."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = {each.arg for each in positional[: len(positional) - len(given.defaults)]}
    required |= {each.arg for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None}
    names = [each.arg for each in (*positional, *given.kwonlyargs)]
    values: dict[str, str] = {}
    for known, value in ((PATHS, "checkpoint"), (DEVICES, "cell.device"), (DTYPES, "cell.torch_dtype")):
        found = next((name for name in known if name in names), None)
        if found is not None:
            values[found] = value
    mapped = next((name for name in MAPS if name in names), None)
    if mapped is not None and not any(name in values for name in DEVICES):
        values[mapped] = '{"": cell.device}'
    if "checkpoint" not in values.values():
        # The first one, if nothing else is known of it.
        first = next((name for name in names if name not in values), None)
        if first is None:
            return None
        values[first] = "checkpoint"
    if given.posonlyargs or required - set(values):
        return None
    return tuple(f"{name}={value}" for name, value in values.items())
