"""`llmdevice doctor`: what is here, what each kind of cell would do and why, and what would let more of them run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from answered_probe import AnsweredProbe
from hardware.conftest import VERSIONS, make_device, make_machine

from cli.calling import Called, call
from pytest_llmdevice.cli import outlook
from pytest_llmdevice.cli.cells import load_matrix
from pytest_llmdevice.hardware import Inventory, SmokeTest

TOOLS = {"pytest": "9.2.0", "pytest-xdist": "3.8.0"}
CARD = make_device("cuda:0", name="NVIDIA A100", capability="8.0", memory=80 * 2**30, memory_free=79 * 2**30)

Doctor = Callable[..., Called]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Calls the command on a machine that is made up."""

    def called(inventory: Inventory, *arguments: str) -> Called:
        monkeypatch.setattr("pytest_llmdevice.hardware.start", lambda *_: AnsweredProbe(inventory))
        return call("doctor", *arguments)

    return called


def advice(inventory: Inventory, matrix: str = "default", tools: dict[str, str] = TOOLS) -> list[outlook.Advice]:
    return list(outlook.outlook(matrix, load_matrix(matrix), inventory, tools).advice)


def commands(inventory: Inventory, matrix: str = "default", tools: dict[str, str] = TOOLS) -> list[str]:
    return [command for each in advice(inventory, matrix, tools) for command in each.commands]


def without(inventory: Inventory, *packages: str) -> Inventory:
    kept = {name: version for name, version in inventory.versions.items() if name not in packages}
    return replace(inventory, versions=kept)


def test_each_device_is_shown_with_memory_capability_and_what_works_on_it(doctor: Doctor) -> None:
    failed = SmokeTest(False, "RuntimeError: no kernel image")
    t4 = make_device(
        "cuda:1",
        name="NVIDIA T4",
        capability="7.5",
        dtypes={"float32": SmokeTest(True), "bfloat16": failed, "float16": SmokeTest(True)},
        quantization={"int8": SmokeTest(True, failures={"bfloat16": "RuntimeError: not for it"}), "nf4": failed},
    )

    out = doctor(make_machine(CARD, t4)).out

    assert "cuda:0: NVIDIA A100, compute capability 8.0, 80 GiB (79 free)\n    works  float32 bfloat16 float16" in out
    assert "cuda:1: NVIDIA T4, compute capability 7.5" in out
    assert "    works  float32 float16 int8\n" in out
    assert "    fails  bfloat16, nf4: RuntimeError: no kernel image\n" in out
    assert "    fails  int8 in bfloat16: RuntimeError: not for it\n" in out


def test_cells_are_counted_by_device_dtype_and_quantization(doctor: Doctor) -> None:
    found = doctor(make_machine(), "--matrix", "cpu", "--json").json

    counted = {
        (each["device"], each["dtype"], each["quantization"]): each["cells"]
        for each in found["cells"]
        if each["verdict"] == "run"
    }
    assert counted["cpu", "float32", "none"] == 70
    assert sum(each["cells"] for each in found["cells"]) == found["count"]
    assert sum(counted.values()) == found["running"]


def test_the_grid_has_how_many_cells_run_and_of_how_many(doctor: Doctor) -> None:
    out = doctor(make_machine(), "--matrix", "cpu").out

    rows = [line.split() for line in out.splitlines() if line.strip().startswith("float32 ")]
    # DeepSeek-V3 in int8 has no kernel on the cpu, with three strategies.
    assert rows == [["float32", "70", "36", "of", "39", "39", "39", "39"]]


def test_a_device_that_is_not_here_is_one_line_with_the_reason(doctor: Doctor) -> None:
    out = " ".join(doctor(make_machine(), "--matrix", "release").out.split())

    assert "cuda:0: 127 cells not run: absent: no cuda:0 here (this machine has cpu)" in out


def test_cards_that_would_do_the_same_are_shown_once(doctor: Doctor) -> None:
    cards = [make_device(f"cuda:{index}") for index in range(4)]

    out = doctor(make_machine(*cards), "--matrix", "lmp").out

    assert "  cpu, cuda:0, cuda:1, cuda:2, cuda:3: 9 of 9 cells each run" in out


def test_simulated_cells_are_apart(doctor: Doctor) -> None:
    called = doctor(make_machine(), "--matrix", "lmp", "--simulate", "cuda:2")

    assert "simulated cuda:2: cuda:0, cuda:1 as NVIDIA H100" in called.out
    assert "  cpu, cuda:0 simulated, cuda:1 simulated: 9 of 9 cells each run" in called.out


def test_no_line_is_wider_than_the_terminal(doctor: Doctor) -> None:
    for arguments in ([], ["--simulate", "cuda:8"]):
        lines = doctor(make_machine(), *arguments).out.splitlines()

        assert [line for line in lines if len(line) > 80] == []


def test_versions_and_what_is_not_installed_are_listed(doctor: Doctor) -> None:
    out = doctor(without(make_machine(), "bitsandbytes")).out

    assert f"transformers {VERSIONS['transformers']}" in out
    assert "not installed, and optional: bitsandbytes, flash_attn" in out


def test_the_cache_is_where_the_variable_says(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")
    (folder / "zoo" / "llama-1").mkdir(parents=True)
    (folder / "zoo" / "llama-1" / "config.json").touch()
    monkeypatch.setenv("LLMDEVICE_CACHE", str(folder))

    assert f"{folder}: 1 built checkpoint" in doctor(make_machine()).out


def test_a_variable_that_hides_devices_is_named_and_its_value_is_not_recorded(doctor: Doctor) -> None:
    machine = replace(make_machine(), visible={"CUDA_VISIBLE_DEVICES": "GPU-secret"})

    called = doctor(machine, "--matrix", "cpu")

    assert "CUDA_VISIBLE_DEVICES is set" in called.out
    assert "GPU-secret" not in called.out
    assert "GPU-secret" not in doctor(machine, "--matrix", "cpu", "--json").out


def test_missing_things_are_no_failure(doctor: Doctor) -> None:
    assert doctor(without(make_machine(), "bitsandbytes", "accelerate")).code == 0


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_probe_that_failed_is_exit_code_1_with_its_text(doctor: Doctor, form: list[str]) -> None:
    called = doctor(Inventory(failure="crashed with signal 11 (SIGSEGV) during: cuda:0"), *form)

    assert called.code == 1
    assert "crashed with signal 11 (SIGSEGV) during: cuda:0" in " ".join(called.out.split())


def test_a_probe_that_failed_says_what_to_do_first() -> None:
    assert "import torch" in commands(Inventory(failure="crashed with signal 11"))[0]
    assert (
        commands(Inventory(failure="timed out after 120 s", timed_out=True))[0]
        == "llmdevice doctor --probe-timeout 600"
    )


def test_without_bitsandbytes_the_extra_is_named_with_what_it_brings() -> None:
    machine = without(make_machine(), "bitsandbytes")

    found = advice(machine, "cpu")

    assert found[0].commands == ('python -m pip install "pytest-llmdevice[bitsandbytes]"',)
    quantized = sum(
        1 for cell in outlook.outlook("cpu", load_matrix("cpu"), machine, TOOLS).decisions if _quantized(cell)
    )
    assert f"none of the {quantized} quantized cells can run" in found[0].why


def _quantized(cell: Any) -> bool:
    return bool(cell.quantization != "none")


def test_a_matrix_without_quantization_does_not_need_bitsandbytes() -> None:
    assert advice(without(make_machine(CARD), "bitsandbytes"), "lmp") == []


def test_without_xdist_its_extra_is_named() -> None:
    assert commands(make_machine(CARD), "lmp", {"pytest": "9.2.0"}) == [
        'python -m pip install "pytest-llmdevice[xdist]"'
    ]


def test_a_library_that_is_too_old_is_named_with_what_is_needed() -> None:
    machine = make_machine(CARD, versions={**VERSIONS, "transformers": "4.40.0"})

    found = advice(machine, "lmp")

    assert found[0].why.startswith("transformers 4.40.0 is installed, and pytest-llmdevice needs >=4.57.1")
    assert found[0].commands == ('python -m pip install --upgrade "transformers>=4.57.1"',)


def test_kinds_that_are_not_here_can_be_simulated_and_the_cells_are_counted() -> None:
    assert commands(make_machine(), "lmp") == [
        "pytest --llm-matrix --llm-matrix-file lmp --llm-simulate cuda:2  # 18 cells"
    ]


def test_a_card_that_is_here_is_never_said_to_be_simulated() -> None:
    assert commands(make_machine(CARD), "multi-gpu") == []


def test_rocm_cards_are_not_simulated_beside_real_cuda_ones() -> None:
    assert not any("rocm" in command for command in commands(make_machine(CARD)))


def test_a_card_on_which_nothing_works_is_spoken_of() -> None:
    broken = make_device(
        "cuda:0", dtypes={"float32": SmokeTest(False, "RuntimeError: driver too old")}, quantization={}
    )

    assert any("cuda:0 is here and fails every dtype" in each.why for each in advice(make_machine(broken)))


def test_bad_input_is_one_sentence(doctor: Doctor) -> None:
    for arguments, message in (
        (["--matrix", "nope"], "unknown matrix 'nope'"),
        (["--simulate", "cuba"], "--simulate: unknown simulation profile 'cuba'"),
        (["--probe-timeout", "0"], "0.0 is not in the range"),
    ):
        called = doctor(make_machine(), *arguments)

        assert called.code == 2
        assert message in called.err


def test_real_cards_are_not_shadowed(doctor: Doctor) -> None:
    called = doctor(make_machine(CARD), "--simulate", "cuda")

    assert called.code == 2
    assert "real cards are never shadowed" in called.err


def test_this_machine_is_probed_without_torch_in_the_process_of_the_command() -> None:
    code = (
        "import sys, io, json, contextlib\n"
        "from pytest_llmdevice.cli.command import command\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out):\n"
        "    command(['doctor', '--matrix', 'cpu', '--json'], standalone_mode=False)\n"
        "data = json.loads(out.getvalue())\n"
        "print(data['inventory']['devices'][0]['device'], data['running'] > 0)\n"
        "print([name for name in ('torch', 'transformers', 'rich', 'pytest') if name in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines() == ["cpu True", "[]"]
