"""What the user got wrong is one message with exit code 4 and no traceback."""

from __future__ import annotations

import pytest

BAD_MATRICES = {
    "a wrong key": (
        'modles = ["llama"]\nmodels = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n',
        "*bad.toml: modles: unknown key 'modles'; did you mean 'models'? (valid: *)",
    ),
    "a wrong value": (
        'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float64"]\n',
        "*bad.toml: dtypes: unknown dtype 'float64'; did you mean 'float16'? (valid: float32, bfloat16, float16)",
    ),
    "a wrong type": (
        'models = ["llama"]\ndevices = ["cpu"]\ndtypes = 16\n',
        "*bad.toml: dtypes: must be a list of names (got integer 16)",
    ),
    "an empty axis": (
        'models = []\ndevices = ["cpu"]\ndtypes = ["float32"]\n',
        "*bad.toml: models: is empty, so the matrix would have no cells; give at least one value",
    ),
    "an empty product": (
        'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n[[exclude]]\nmodels = "llama"\n',
        "*the matrix is empty: ??exclude?? removes all 1 cells of the product",
    ),
    "an unknown model": (
        'models = ["lama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\n',
        "*bad.toml: models: unknown model 'lama'; did you mean 'llama'? (valid: llama, *path:DIR, hub:*",
    ),
    "an unknown strategy": (
        'models = ["llama"]\ndevices = ["cpu"]\ndtypes = ["float32"]\nstrategies = ["device_map"]\n',
        "*bad.toml: strategies: unknown strategy 'device_map'; did you mean 'device-map'? (valid: *)",
    ),
    "broken TOML": ("models = [\n", "*bad.toml: not valid TOML: * (at *"),
}


def refused(project: pytest.Pytester, *args: str) -> str:
    """Run, make sure that it was refused properly, and return the message."""
    result = project.runpytest("--llm-matrix", *args, ".")
    message = result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    assert message.count("ERROR: ") == 1
    assert "Traceback" not in message + result.stdout.str()
    assert "INTERNALERROR" not in message + result.stdout.str()
    return message


@pytest.mark.parametrize("kind", BAD_MATRICES)
def test_a_bad_matrix_file_is_refused_with_file_key_value_and_nearest_match(
    project: pytest.Pytester, kind: str
) -> None:
    text, expected = BAD_MATRICES[kind]
    (project.path / "bad.toml").write_text(text)
    message = refused(project, "--llm-matrix-file", "bad.toml")
    pytest.LineMatcher(message.splitlines()).fnmatch_lines([f"ERROR: {expected}"])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--llm-matrix-file", "cdua"], "ERROR: unknown matrix 'cdua': *did you mean 'cuda'? (shipped matrices: *"),
        (["--llm-cell", "devise=cpu"], "ERROR: --llm-cell 'devise=cpu': unknown key 'devise'; did you mean 'device'?*"),
        (["--llm-cell", "model=lama"], "ERROR: --llm-cell 'model=lama' matches no cell*did you mean 'llama'?*"),
        (["--llm-cell", "llama.cpu.fp64"], "ERROR: --llm-cell 'llama.cpu.fp64' matches no cell*did you mean*"),
        (["--llm-cell", "device="], "ERROR: --llm-cell 'device=': 'device' has no value; write KEY=*"),
        (["--llm-require", "cuda"], "ERROR: --llm-require: *cuda*cpu*"),
        (["--llm-require", "cdua"], "ERROR: *'cdua'*did you mean 'cuda'*"),
        (["--llm-probe-timeout", "soon"], "ERROR: --llm-probe-timeout 'soon' is not a positive number of seconds"),
        (["--llm-target", "no_such_module"], "ERROR: target 'no_such_module': no module named 'no_such_module'*"),
        (["--llm-target", "no-module"], "ERROR: target 'no-module' is not of the form*"),
        (["--llm-target", "loaders:loda"], "ERROR: target 'loaders:loda': * no attribute 'loda'; did you mean 'load'?"),
        (["--llm-target", "loaders:Empty"], "ERROR: target 'loaders:Empty' has no function 'load'*"),
        (["--llm-target", "loaders:Picky"], "ERROR: target 'loaders:Picky': the class could not be instantiated*"),
        (["--llm-target", "broken"], "ERROR: target 'broken': its import failed: ZeroDivisionError: division by zero"),
        (["--llm-target", "needy"], "ERROR: target 'needy': its import failed: No module named 'absent_dependency'"),
    ],
)
def test_a_bad_flag_is_refused_with_what_would_be_valid(
    project: pytest.Pytester, args: list[str], expected: str
) -> None:
    project.makepyfile(
        loaders="""
        def load(checkpoint, cell): ...
        class Empty: ...
        class Picky:
            def __init__(self, path): ...
        """,
        broken="1 / 0",
        needy="import absent_dependency",
    )
    project.syspathinsert()
    # A later flag wins: the first one is only there so that the default matrix is not expanded.
    message = refused(project, "--llm-matrix-file=two.toml", *args)
    pytest.LineMatcher(message.splitlines()).fnmatch_lines([expected])


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("llm_matrix(device='cpu')", "*llm_matrix: unknown keyword 'device'; did you mean 'devices'?*"),
        ("llm_matrix('cpu')", "*llm_matrix takes keywords only*"),
        ("llm_requires(memory='8 apples')", "*llm_requires: *8 apples*"),
        ("llm_requires(gpus=2)", "*llm_requires: unknown keyword 'gpus'*"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--llm-matrix", "--llm-matrix-file=one.toml"]])
def test_a_bad_marker_is_refused_with_and_without_a_matrix(
    project: pytest.Pytester, marker: str, expected: str, flags: list[str]
) -> None:
    project.makepyfile(f"import pytest\n\n@pytest.mark.{marker}\ndef test_cell(llm_cell): pass")
    result = project.runpytest(*flags, ".")
    assert result.ret != pytest.ExitCode.OK
    pytest.LineMatcher((result.stderr.str() + result.stdout.str()).splitlines()).fnmatch_lines([expected])


def test_a_matrix_in_the_ini_file_is_relative_to_it(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.makeini("[pytest]\nllm_matrix_file = two.toml\n")
    below = project.mkdir("below")
    (below / "test_it.py").write_text("def test_cell(llm_cell): pass")
    monkeypatch.chdir(below)
    project.runpytest("--llm-matrix", "test_it.py").assert_outcomes(passed=2)
