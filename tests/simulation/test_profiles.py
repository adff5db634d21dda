from __future__ import annotations

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.simulation import Profile, parse

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "name", "devices", "memory"),
    [
        ("cuda", "cuda", ("cuda:0",), 80 * GIB),
        ("cuda:2", "cuda", ("cuda:0", "cuda:1"), 80 * GIB),
        ("cuda-t4", "cuda-t4", ("cuda:0",), 15 * GIB),
        ("rocm:2", "rocm", ("cuda:0", "cuda:1"), 192 * GIB),
        ("mps", "mps", ("mps:0",), 36 * GIB),
        ("mps:1", "mps", ("mps:0",), 36 * GIB),
        ("xpu:8", "xpu", tuple(f"xpu:{index}" for index in range(8)), 64 * GIB),
        ("cuda:2,memory=512MiB", "cuda", ("cuda:0", "cuda:1"), GIB // 2),
        (" cuda-t4:1 , memory=2GB", "cuda-t4", ("cuda:0",), 2 * 10**9),
        ("mps,memory=8GiB", "mps", ("mps:0",), 8 * GIB),
    ],
)
def test_a_text_names_a_machine(text: str, name: str, devices: tuple[str, ...], memory: int) -> None:
    profile = parse(text)

    assert (profile.name, profile.devices, profile.memory, profile.count) == (name, devices, memory, len(devices))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cudaa:2", "unknown simulation profile 'cudaa'; did you mean 'cuda'? (valid: cuda, cuda-t4, rocm,"),
        ("CUDA", "unknown simulation profile 'CUDA'; did you mean 'cuda'?"),
        ("", "unknown simulation profile '' (valid: cuda,"),
        ("cuda:2,mem=1GiB", "simulation 'cuda:2,mem=1GiB': unknown setting 'mem'; did you mean 'memory'?"),
        ("cuda,", "simulation 'cuda,': unknown setting '' (valid: memory)"),
        ("mps:2", "simulation 'mps:2': a machine has one mps device, write 'mps'"),
        ("cuda,memory=0GiB", "simulation 'cuda,memory=0GiB': a card needs some memory"),
        ("cuda,memory=lots", "simulation 'cuda,memory=lots': memory size 'lots' is not a number with a unit, such as"),
        ("cuda,memory", "simulation 'cuda,memory': memory size '' is not a number with a unit"),
        ("cuda,memory=-1GiB", "simulation 'cuda,memory=-1GiB': memory size '-1GiB' is not a number with a unit"),
    ],
)
def test_a_text_that_names_none_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", ["0", "9", "x", "-1", "", "1.5", "²", "2:3", "+2"])
def test_a_count_is_a_number_from_1_to_8(count: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(f"cuda:{count}")

    assert str(caught.value) == (
        f"simulation 'cuda:{count}': the count of cards is {count!r}, it must be a number from 1 to 8 (such as cuda:2)"
    )


@pytest.mark.parametrize(
    ("name", "device_type", "indexed", "text"),
    [
        ("cuda", "cuda", True, "cuda:1"),
        ("rocm", "cuda", True, "rocm:1"),
        ("xpu", "xpu", True, "xpu:1"),
        ("mps", "mps", False, "mps"),
    ],
)
def test_a_kind_has_a_type_in_pytorch(name: str, device_type: str, indexed: bool, text: str) -> None:
    profile = current().of(Profile)[name]

    assert (profile.device_type, profile.indexed, str(profile)) == (device_type, indexed, text)


@pytest.mark.parametrize(
    ("profile", "kind", "device", "covers"),
    [
        ("cuda:2", "cuda", "cuda:1", True),
        ("cuda:2", "cuda", "cuda:2", False),
        ("cuda:2", "cuda", "cuda", True),
        ("cuda:2", "rocm", "cuda:1", False),
        ("rocm", "rocm", "cuda:0", True),
        ("rocm", "cuda", "cuda:0", False),
        ("mps", "mps", "mps", True),
        ("mps", "mps", "cpu", False),
    ],
)
def test_a_machine_covers_its_own_devices(profile: str, kind: str, device: str, covers: bool) -> None:
    assert parse(profile).covers(kind, device) is covers


def test_every_profile_is_found_under_its_name() -> None:
    profiles = current().of(Profile)
    assert {name: parse(name) for name in profiles} == profiles
    assert min(profile.memory for profile in profiles.values()) >= GIB
