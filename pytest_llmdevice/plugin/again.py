"""Makes the command that runs one cell of a run again, and has node ids of the suite work as pytest prints them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

SUITE: Final = Path(__file__).parent.parent / "suite"


def command(config: pytest.Config, cell: str) -> str:
    """What to type to run the cell `cell` again, in the folder in which pytest was called.

    It has what decides what is run on what: the matrix, the target, the machines to simulate, pytest's own
    configuration, plugins and the paths, each as it was given. What came from an ini file is there again by itself;
    what `addopts` has is said twice, and cells that it names are run too.
    """
    option = config.option
    words = [*_program(), "--llm-matrix"]
    words += [f"--llm-matrix-file={option.llm_matrix_file}"] if option.llm_matrix_file else []
    words += [f"--llm-target={option.llm_target}"] if option.llm_target else []
    words += [f"--llm-simulate={machine}" for machine in option.llm_simulate or ()]
    words += [f"--llm-isolate={option.llm_isolate}"] if option.llm_isolate else []
    words.append(f"--llm-cell={cell}")
    words += [word for name in option.plugins or () for word in ("-p", name)]
    words += ["-c", option.inifilename] if option.inifilename else []
    words += [f"--rootdir={option.rootdir}"] if option.rootdir else []
    words += [word for setting in option.override_ini or () for word in ("-o", setting)]
    words += ["--pyargs"] if option.pyargs else []
    words += _paths(config)
    return " ".join(shlex.quote(word) for word in words)


def _program() -> list[str]:
    """`python -m pytest` puts the folder on the path of imports, and `pytest` does not."""
    return ["python", "-m", "pytest"] if Path(sys.argv[0]).name == "__main__.py" else ["pytest"]


def _paths(config: pytest.Config) -> list[str]:
    """The files and folders that were given, without tests in them: which of them failed, all of them may tell."""
    given = config.option.file_or_dir or ()
    return list(dict.fromkeys(str(path).partition("::")[0] for path in given))


def of_suite(argument: str, config: pytest.Config) -> str:
    """A path or node id as it was given; that of a test of the suite as pytest prints it, with the folder in it.

    pytest prints node ids of files outside of the root directory as if they were in it.
    """
    path, colons, test = argument.partition("::")
    own = SUITE / Path(path).name
    here = config.invocation_params.dir / path
    printed = config.rootpath / own.name
    if own.is_file() and not here.exists() and here.resolve() == printed.resolve():
        return f"{own}{colons}{test}"
    return argument
