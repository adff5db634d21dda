"""The command `llmdevice init`, which writes a target and a smallest matrix for the project at hand."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from pytest_llmdevice.cli.project import Kind, Loader

TARGET: Final = "llm_target.py"
MATRIX: Final = "llm-matrix.toml"

_MATRIX: Final = """\
description = "{name}: the smallest matrix; pytest --llm-matrix runs it"
models = ["{model}"]
devices = ["cpu"]
dtypes = ["float32", "bfloat16"]
"""

_HEAD: Final = '''\
"""What pytest-llmdevice tests: how this project loads a model, and how it generates.

`load` gets a local folder that from_pretrained reads, and a cell: what is asked for (device, dtype, quantization,
strategy). What else may be said here, such as cells that are not offered, is in the plugin's docs/targets.md.
"""

'''

_OFFERS: Final = '''

def offers(cell):
    """Which cells this project can load at all; say more here, and add them to {matrix}."""
    return cell.quantization == "none" and cell.strategy == "to"
'''

_TEMPLATES: Final = {
    "transformers": """\
from transformers import AutoModelForCausalLM


def load(checkpoint, cell):
    # Replace this by what your project does.
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device)
""",
    "peft": """\
from peft import AutoPeftModelForCausalLM


def load(checkpoint, cell):
    # Replace this by what your project does.
    return AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device).eval()
""",
    "pipeline": """\
from transformers import pipeline


def load(checkpoint, cell):
    # Replace this by what your project does.
    return pipeline("text-generation", model=checkpoint, dtype=cell.torch_dtype, device=cell.device)


def generate_text(loaded, prompts, max_new_tokens):
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "return_full_text": False}
    return [loaded(prompt, **options)[0]["generated_text"] for prompt in prompts]
""",
    "own": """\
from pytest_llmdevice import Unsupported


def load(checkpoint, cell):
    # Make your model here: config.json and model.safetensors in the folder `checkpoint` are those of a Llama.
    raise Unsupported("llm_target.load does not make this project's model yet")
""",
}

_FOUND: Final = """\
from {module} import {function}


def load(checkpoint, cell):
    return {function}({arguments})
"""

_SETTINGS: Final = {"llm_target": "llm_target", "llm_matrix_file": MATRIX}


@click.command(short_help="a target and a smallest matrix for the project at hand")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["transformers", "peft", "pipeline", "own"]), help="found out if not given")
@click.option("--force", is_flag=True, help="replace files that are there")
def command(folder: Path, kind: Kind | None, force: bool) -> None:  # click hands it over so
    """Write llm_target.py and llm-matrix.toml into FOLDER, so that `pytest --llm-matrix` there tests its loader.

    The project's source is read, and not imported: a function that loads a model is called in the target, if its
    arguments say what they are; else the target shows how a loader of that kind is written. pytest's configuration gets
    the two settings, where it is in pyproject.toml or there is none.
    """
    from pytest_llmdevice.cli.output import say
    from pytest_llmdevice.cli.project import loaders_in
    from pytest_llmdevice.errors import ConfigurationError

    there = [name for name in (TARGET, MATRIX) if (folder / name).exists()]
    if there and not force:
        raise ConfigurationError(f"{folder / there[0]} is there already; --force replaces it")
    loaders = [loader for loader in loaders_in(folder) if kind is None or loader.kind == kind]
    chosen = next((loader for loader in loaders if loader.arguments is not None), None)
    made: Kind = kind or (loaders[0].kind if loaders else "transformers")
    (folder / TARGET).write_text(_target(chosen, made), encoding="utf-8")
    model = "llama+lora" if made == "peft" else "llama"
    matrix = _MATRIX.format(name=folder.resolve().name.replace("\\", "").replace('"', ""), model=model)
    (folder / MATRIX).write_text(matrix, encoding="utf-8")
    if chosen is not None:
        say(f"{TARGET}: calls {chosen.module}.{chosen.function}({', '.join(chosen.arguments or ())})")
    else:
        say(f"{TARGET}: a loader of the kind {made!r}, to be replaced by yours")
    others = [loader for loader in loaders if loader is not chosen]
    say(f"  also found: {loader.module}.{loader.function}" for loader in others[:5])
    say(f"{MATRIX}: {model} on the cpu in float32 and bfloat16")
    said = _configure(folder)
    say(said)
    say("now: pytest --llm-matrix")


def _target(chosen: Loader | None, kind: Kind) -> str:
    if chosen is None:
        return _HEAD + _TEMPLATES[kind] + _OFFERS.format(matrix=MATRIX)
    arguments = ", ".join(chosen.arguments or ())
    return (
        _HEAD
        + _FOUND.format(module=chosen.module, function=chosen.function, arguments=arguments)
        + _OFFERS.format(matrix=MATRIX)
    )


def _configure(folder: Path) -> str:
    """Put the settings where pytest finds them, and say where that is, or what to add."""
    pyproject = folder / "pyproject.toml"
    lines = [f'{name} = "{value}"' for name, value in _SETTINGS.items()]
    if any((folder / name).is_file() for name in ("pytest.ini", ".pytest.ini", "pytest.toml")) or _in_ini(folder):
        return f"add to pytest's configuration: {', '.join(lines)}, and pythonpath = . for {TARGET} to be found"
    if not pyproject.is_file():
        pyproject.write_text("\n".join(["[tool.pytest.ini_options]", 'pythonpath = ["."]', *lines, ""]), "utf-8")
        return "pyproject.toml: written, with pytest's settings"
    before = pyproject.read_text("utf-8")
    tool = tomllib.loads(before).get("tool", {}).get("pytest", {})
    section = "tool.pytest.ini_options" if "ini_options" in tool or not tool else "tool.pytest"
    known = tool.get("ini_options", {}) if section.endswith("ini_options") else tool
    if "pythonpath" not in known:
        lines.insert(0, 'pythonpath = ["."]')
    elif "." not in known["pythonpath"]:
        return f'add to [{section}] in pyproject.toml: {", ".join(lines)}, and "." to pythonpath'
    lines = [line for line in lines if line.partition(" ")[0] not in known]
    header = f"[{section}]\n"
    if header in before:
        after = before.replace(header, header + "\n".join([*lines, ""]), 1)
    elif tool:
        return f"add to [{section}] in pyproject.toml: {', '.join(lines)}"
    else:
        after = before.rstrip("\n") + "\n\n" + header + "\n".join([*lines, ""])
    tomllib.loads(after)
    pyproject.write_text(after, encoding="utf-8")
    return f"pyproject.toml: [{section}] has {', '.join(line.partition(' ')[0] for line in lines)} now"


def _in_ini(folder: Path) -> bool:
    """Whether pytest's configuration is in tox.ini or setup.cfg."""
    for name, section in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(folder / name, encoding="utf-8")
        except configparser.Error:
            continue
        if parser.has_section(section):
            return True
    return False
