"""Matrix files that are too much: one sentence within seconds, whatever is in them, and the documented exit code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cli.calling import call
from forked_run import run_forked
from hostile import TEXT, obeyed

HEAD = 'models = "llama"\ndevices = "cpu"\ndtypes = "float32"\n'
EXPECT = f"{HEAD}[[expect]]\n"
MANY = ", ".join(f'"path:{number:04}"' for number in range(900))
AXES = (
    'dtypes = ["float32", "bfloat16", "float16"]\nquantization = ["none", "int8", "nf4", "fp4"]\n'
    'strategies = ["to", "device-map", "auto", "balanced"]\n'
    'attention = ["eager", "sdpa", "default"]\n'
)
BASIC = "".join(f"\\U{ord(character):08x}" if character != "\\" else "\\\\" for character in TEXT)

FILES = {
    **{
        f"tolerance {value}": f"{EXPECT}tolerance = {value}\n"
        for value in ("1e300", "1.5", "nan", "inf", "-inf", "-1", "0", "1" + "0" * 400, "9" * 5000, "true", '"1"', "[]")
    },
    "a deep array": f"{HEAD}x = {'[' * 100_000}{']' * 100_000}\n",
    "a deep table": f"{HEAD}x = {'{a=' * 100_000}1{'}' * 100_000}\n",
    "an array that is somewhat deep": f"{HEAD}x = {'[' * 300}{']' * 300}\n",
    "a deep value of a key": f"models = {'[' * 200}{']' * 200}\n",
    "a key of many parts": f"{HEAD}{'.'.join(['a'] * 100_000)} = 1\n",
    "a header of many parts": f"{HEAD}[{'.'.join(['a'] * 100_000)}]\n",
    "a known key of many parts": f"{HEAD}require{'.a' * 100_000} = 1\n",
    "a product of millions": f"models = [{MANY}]\ndevices = {[f'cuda:{number}' for number in range(100)]}\n{AXES}",
    "a large product to cover": f'coverage = "pairwise"\nmodels = [{MANY}]\ndevices = "cpu"\n{AXES}',
    "many included cells": f"{HEAD}{'[[include]]' + chr(10) + f'models = [{MANY}]' + chr(10) + AXES}" * 1
    + f"[[include]]\nmodels = [{MANY}]\n{AXES}" * 5,
    "many models": f"models = [{', '.join(f'{chr(34)}path:{n}{chr(34)}' for n in range(15_000))}]\n",
    "many unknown models": f"models = [{', '.join(f'{chr(34)}x{n}{chr(34)}' for n in range(15_000))}]\n",
    "one model many times": f"models = [{', '.join(['x' and chr(34) + 'llama' + chr(34)] * 15_000)}]\n",
    "many rules": f"{HEAD}" + '[[exclude]]\nmodels = "llama"\n' * 8_000,
    "many rules about many cells": f'models = [{MANY}]\ndevices = "cpu"\n{AXES}' + '[[exclude]]\nmodels = "x*"\n' * 900,
    "many unknown keys": HEAD + "".join(f"x{number} = 1\n" for number in range(15_000)),
    "a long key": f"{HEAD}{'x' * 200_000} = 1\n",
    "a long name": f'models = "{"x" * 200_000}"\ndevices = "cpu"\ndtypes = "float32"\n',
    "a large file": f"{HEAD}#{'x' * 2**21}\n",
    "no text": b"\xff\xfe\x00",
    "a hostile key": f'{HEAD}"{BASIC}" = 1\n',
    "a hostile name": f'models = "{BASIC}"\ndevices = "{BASIC}"\ndtypes = "{BASIC}"\n',
    "a hostile value": f'{HEAD}description = ["{BASIC}"]\n',
    "a hostile parent": f'{HEAD}extends = "{BASIC}"\n',
    "a hostile version": f'{EXPECT}xfail = "x"\nversions = {{ torch = "{BASIC}" }}\n',
    "a date": f"{HEAD}description = 1979-05-27T07:32:00Z\n",
    "itself": f'{HEAD}extends = "file.toml"\n',
    "itself in another way": f'{HEAD}extends = "./x/../file.toml"\n',
    "a folder": f'{HEAD}extends = "."\n',
    "a very long parent": f'{HEAD}extends = "{"x" * 5000}"\n',
    "a parent with a zero": f'{HEAD}extends = "a\\u0000b"\n',
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("arguments", [("matrix", "show"), ("plan", "--matrix"), ("matrix", "validate")], ids=" ".join)
def test_a_file_that_is_too_much_is_refused_in_a_sentence(
    tmp_path: Path, content: str | bytes, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    path = tmp_path / "file.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    called = call(*arguments, "file.toml")
    assert time.process_time() - started < 10
    assert called.code == (1 if "validate" in arguments else 2)
    assert "Traceback" not in called.out + called.err
    assert not obeyed(called.out + called.err)
    assert len(called.out + called.err) < 60_000


def test_a_chain_of_1500_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(1500):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n{HEAD}')
    (tmp_path / "1500.toml").write_text(HEAD)
    called = call("matrix", "show", "0.toml")
    assert (called.code, called.err.count("\n")) == (2, 1)
    assert "extends: more than 50 files, one after the other" in called.err


def test_a_circle_of_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for here, there in ("ab", "bc", "ca"):
        (tmp_path / f"{here}.toml").write_text(f'extends = "{there}.toml"\n{HEAD}')
    called = call("matrix", "show", "a.toml")
    assert (called.code, called.err.count("\n")) == (2, 1)
    assert "extends: goes round in a circle" in called.err


@pytest.mark.parametrize("name", ["a deep array", "a product of millions", "a hostile name"])
def test_a_run_is_refused_as_a_usage_error(pytester: pytest.Pytester, name: str) -> None:
    content = FILES[name]
    assert isinstance(content, str)
    (pytester.path / "file.toml").write_text(content)
    result = run_forked(pytester.path, "--llm-matrix", "--llm-matrix-file=file.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    shown = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in shown
    assert not obeyed(shown)
