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


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("cuda:h100", ["NVIDIA H100 80GB HBM3"]),
        ("cuda:h100+t4", ["NVIDIA H100 80GB HBM3", "Tesla T4"]),
        ("cuda:t4+h100", ["Tesla T4", "NVIDIA H100 80GB HBM3"]),
        ("cuda:t4:2", ["Tesla T4", "Tesla T4"]),
        ("cuda:2xt4+rtx4090", ["Tesla T4", "Tesla T4", "NVIDIA GeForce RTX 4090"]),
        ("cuda:h100+h100", ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"]),
        ("cuda:h100-1g.10gb", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"]),
        ("cuda-a100-3g.40gb", ["NVIDIA A100-SXM4-80GB MIG 3g.40gb"]),
        ("rocm:mi300x+mi210", ["AMD Instinct MI300X", "AMD Instinct MI210"]),
        ("xpu:a770+b580", ["Intel(R) Arc(TM) A770 Graphics", "Intel(R) Arc(TM) B580 Graphics"]),
        ("mps:m1", ["Apple M1"]),
        ("cuda:v100+h100", ["Tesla V100-SXM2-16GB", "NVIDIA H100 80GB HBM3"]),
    ],
)
def test_cards_are_named_one_by_one(text: str, cards: list[str]) -> None:
    profile = parse(text)

    assert [card.card for card in profile.cards] == cards
    assert profile.count == len(cards) == len(profile.devices)
    assert parse(profile.spec) == profile


def test_each_card_has_its_own_memory() -> None:
    mixed = parse("cuda:h100+t4,memory=64MiB+16MiB")
    equal = parse("cuda:2,memory=2GiB+1GiB")

    assert [card.memory for card in mixed.cards] == [64 * 2**20, 16 * 2**20]
    assert [card.memory for card in equal.cards] == [2 * GIB, GIB]
    assert [card.memory for card in parse("cuda:h100+t4,memory=1GiB").cards] == [GIB, GIB]
    for profile in (mixed, equal):
        assert parse(profile.spec) == profile


def test_the_build_is_one_that_has_kernels_for_each_card() -> None:
    assert parse("cuda:h100+t4").toolkit == "13.0"
    assert {card.toolkit for card in parse("cuda:v100+h100").cards} == {"12.6"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cuda:h100+mi300x",
            "mi300x is a card of rocm, and a machine has cards of one kind (for one of its own, rocm",
        ),
        (
            "cuda:h100+mi300",
            "unknown cuda card 'mi300'; did you mean 'mi300x'? That is a card of rocm, and a ",
        ),
        ("cuda:h100+m3", "m3 is a card of mps, and a machine has cards of one kind"),
        ("cuda:h10+t4", "unknown cuda card 'h10'; did you mean 'h100'? (valid: t4, v100,"),
        ("cuda:H100", "unknown cuda card 'H100'; did you mean 'h100'?"),
        ("cuda:h100+", "unknown cuda card '' (valid:"),
        ("cuda:h100+2", "unknown cuda card '2' (valid:"),
        ("cuda:h100-9g.99gb", "NVIDIA H100 80GB HBM3 has no MIG instance '9g.99gb' (valid: 1g.10gb,"),
        ("cuda:t4-1g.10gb", "Tesla T4 has no MIG instance '1g.10gb' (valid: none)"),
        ("cuda:h100-1g.10gb+t4", "a process that sees a MIG instance (cuda-h100-1g.10gb) sees no other card"),
        ("cuda:v100+b200", "no build of PyTorch is for both Tesla V100-SXM2-16GB (12.6) and NVIDIA B200 (13.0)"),
        ("rocm:mi300x+k100ai", "no build of PyTorch is for both AMD Instinct MI300X (7.0) and K100_AI (6.3)"),
        ("mps:m1+m2", "a machine has one mps device, write 'mps'"),
        ("cuda:9xt4", "the count of cards is '9', it must be a number from 1 to 8"),
        ("cuda:h100+t4,memory=1GiB+1GiB+1GiB", "3 sizes of memory for 2 cards; give one for all, or one for each"),
        ("cuda:h100+t4,memory=1GiB+lots", "memory size 'lots' is not a number with a unit"),
    ],
)
def test_cards_that_no_machine_has_together_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)

    assert str(caught.value).startswith(f"simulation {text!r}: {message}")
    assert "\n" not in str(caught.value)
