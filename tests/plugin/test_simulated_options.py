"""`--llm-simulate`: what it refuses, each in one sentence with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_llmdevice.hardware import Device, Inventory, SmokeTest

pytestmark = pytest.mark.usefixtures("no_cards")

CARD = Device("cuda:0", "cuda", "NVIDIA T4", dtypes={"float32": SmokeTest(True)})


def refused(project: pytest.Pytester, *args: str) -> str:
    """Run, make sure that it was refused properly, and return the message."""
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", *args, ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    lines = [line for line in result.errlines if line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["cdua"], "unknown simulation profile 'cdua'; did you mean 'cuda'? (valid: cuda, cuda-t4, *"),
        (["cuda:0"], "simulation 'cuda:0': the count of cards is '0', it must be a number from 1 to 8 *"),
        (["cuda:9"], "simulation 'cuda:9': the count of cards is '9', it must be a number from 1 to 8 *"),
        (["cuda:x"], "simulation 'cuda:x': the count of cards is 'x', it must be a number from 1 to 8 *"),
        (["mps:2"], "simulation 'mps:2': a machine has one mps device, write 'mps'"),
        (["cuda,memory=8"], "simulation 'cuda,memory=8': memory size '8' is not a number with a unit*"),
        (["cuda,memory=0GiB"], "simulation 'cuda,memory=0GiB': a card needs some memory"),
        (["cuda,size=8GiB"], "simulation 'cuda,size=8GiB': unknown setting 'size'*"),
        (
            ["cuda:2", "cuda-t4"],
            "cuda:2 and cuda-t4:1 both simulate cuda cards, and a run has one machine*",
        ),
    ],
)
def test_a_bad_profile_is_refused_with_what_would_be_valid(
    project: pytest.Pytester, values: list[str], expected: str
) -> None:
    message = refused(project, *(f"--llm-simulate={value}" for value in values))
    pytest.LineMatcher([message]).fnmatch_lines([f"ERROR: --llm-simulate: {expected}"])


@pytest.mark.parametrize(
    ("here", "profile", "named"),
    [
        (CARD, "cuda:2", "cuda:0 (NVIDIA T4)"),
        (replace(CARD, dtypes={}), "cuda-t4", "cuda:0 (NVIDIA T4)"),
        (CARD, "rocm", "cuda:0 (NVIDIA T4)"),
        (replace(CARD, kind="rocm", name="MI300X"), "cuda", "rocm:0 (MI300X)"),
        (Device("mps", "mps"), "mps", "mps"),
    ],
    ids=["the same kind", "unusable", "rocm over cuda", "cuda over rocm", "mps"],
)
def test_real_devices_are_never_shadowed(
    project: pytest.Pytester,
    no_cards: Inventory,
    known_probe: Callable[[Inventory], None],
    here: Device,
    profile: str,
    named: str,
) -> None:
    known_probe(replace(no_cards, devices=(*no_cards.devices, here)))
    message = refused(project, f"--llm-simulate={profile}")
    assert message.startswith(f"ERROR: --llm-simulate: this machine has {named}, and real cards are never shadowed by ")
    assert message.endswith(f"leave it out, or run it where there is no {here.device.partition(':')[0]} device")


def test_a_kind_beside_a_real_one_of_another_type_is_allowed(
    project: pytest.Pytester, no_cards: Inventory, known_probe: Callable[[Inventory], None]
) -> None:
    known_probe(replace(no_cards, devices=(*no_cards.devices, CARD)))
    project.makepyfile("def test_cell(llm_cell): pass")
    project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-simulate=mps", ".").assert_outcomes(passed=1)


def test_a_required_device_is_not_met_by_a_simulated_one(project: pytest.Pytester) -> None:
    assert refused(project, "--llm-simulate=cuda:2", "--llm-require=cuda:1") == (
        "ERROR: --llm-require: required cuda:1 is missing: this machine has "
        + refused(project, "--llm-require=mps").partition("this machine has ")[2]
        + " (cuda:0, cuda:1 simulated, which does not count)"
    )


def test_the_ini_file_names_machines_and_the_flag_wins(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nllm_simulate =\n    cuda:2\n    mps\n")
    project.makepyfile("def test_cell(llm_cell): pass")
    flags = ("--llm-matrix", "--llm-matrix-file=one.toml")
    assert project.runpytest(*flags, ".").stdout.str().count("  simulated ") == 2
    project.runpytest(*flags, "--llm-simulate=xpu", ".").stdout.fnmatch_lines(["  simulated xpu:1: xpu:0 as *"])
    project.runpytest(".").stdout.no_fnmatch_line("  simulated *")


def test_nothing_is_simulated_after_a_failed_probe(
    project: pytest.Pytester, known_probe: Callable[[Inventory], None]
) -> None:
    known_probe(Inventory(failure="timed out after 9 s"))
    project.makepyfile("def test_cell(llm_cell): pass")
    project.makefile(".toml", card="models = 'llama'\ndevices = 'cuda:*'\ndtypes = 'float32'\n")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=card.toml", "--llm-simulate=cuda:2", "-rs", ".")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["llm matrix card.toml: 1 cell, 0 run here, 1 unusable"])
    result.stdout.no_fnmatch_line("  simulated *")


def test_a_machine_that_is_named_twice_is_one(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\naddopts = --llm-simulate=cuda:2\n")
    project.makepyfile("def test_cell(llm_cell): pass")
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-simulate=cuda:2", ".")
    assert result.stdout.str().count("  simulated ") == 1
