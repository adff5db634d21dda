from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._utils import _LazySeedTracker
from torch.cuda import manual_seed_all as manual_seed_all_imported_before

from pytest_llmdevice.simulation.generators import check_generator, drawing, generator_device
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.profiles import parse

Drive = Callable[[str], Machine]
FIRST_SEED = 67280421310721


def test_a_generator_says_where_it_is(drive: Drive) -> None:
    drive("cuda:2")

    assert torch.Generator("cuda:1").device == torch.device("cuda:1")
    assert torch.Generator(device="cuda").device == torch.device("cuda:0")
    assert torch.Generator(torch.device("cuda", 1)).device == torch.device("cuda:1")
    assert torch.Generator().device == torch.Generator("cpu").device == torch.device("cpu")
    with torch.cuda.device(1):
        assert torch.Generator("cuda").device == torch.device("cuda:1")


def test_a_generator_of_either_kind_is_one(drive: Drive) -> None:
    real = torch.Generator
    drive("cuda")

    for generator in (torch.Generator("cuda"), torch.Generator()):
        assert isinstance(generator, torch.Generator)
        assert isinstance(generator, real)
    assert not isinstance(1, torch.Generator)
    assert issubclass(real, torch.Generator)


def test_a_generator_has_a_seed_and_a_state(drive: Drive) -> None:
    drive("cuda")
    generator = torch.Generator("cuda")

    assert generator.initial_seed() == FIRST_SEED
    assert generator.manual_seed(7) is generator
    assert generator.initial_seed() == 7
    state = generator.get_state()
    assert (state.dtype, state.device.type) == (torch.uint8, "cpu")
    first = torch.rand(3, generator=generator)
    clone = generator.clone_state()
    assert clone.device == torch.device("cuda:0")
    assert torch.equal(torch.rand(3, generator=clone), torch.rand(3, generator=generator))
    generator.set_state(state)
    assert torch.equal(torch.rand(3, generator=generator), first)
    assert generator.seed() == generator.initial_seed()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"]
)
def test_a_duplicate_is_of_the_same_card(drive: Drive, duplicate: Callable[[Any], Any]) -> None:
    drive("cuda:2")
    generator = torch.Generator("cuda:1").manual_seed(9)

    other = duplicate(generator)

    assert other.device == torch.device("cuda:1")
    assert torch.equal(torch.rand(2, generator=other), torch.rand(2, generator=generator))


def test_a_saved_state_is_taken_over(drive: Drive) -> None:
    drive("cuda")
    one, other = torch.Generator("cuda").manual_seed(1), torch.Generator("cuda").manual_seed(2)

    other.graphsafe_set_state(one.graphsafe_get_state())

    assert torch.equal(torch.rand(2, generator=one), torch.rand(2, generator=other))


def test_what_is_no_device_is_refused_as_ever(drive: Drive) -> None:
    drive("cuda:2")

    with pytest.raises(RuntimeError, match="The device_index is invalid"):
        torch.Generator("cuda:2")
    with pytest.raises(RuntimeError, match="Invalid device string: 'cuda:x'"):
        torch.Generator("cuda:x")
    with pytest.raises(TypeError):
        torch.Generator([])  # type: ignore[arg-type]


def test_a_class_derived_from_the_generator_is_left_alone(drive: Drive) -> None:
    drive("cuda")

    class Mine(torch.Generator):
        pass

    assert isinstance(Mine(), Mine)
    assert Mine("cpu").device.type == "cpu"
    assert not isinstance(torch.Generator("cuda"), Mine)
    assert not issubclass(torch.Generator, Mine)


def test_each_card_has_a_default_generator(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    # What an earlier test seeded is replayed to the cards, as on real ones.
    monkeypatch.setattr(torch.cuda, "_lazy_seed_tracker", _LazySeedTracker())  # type: ignore[no-untyped-call]
    machine = drive("cuda:2")
    torch.cuda.init()  # type: ignore[no-untyped-call]

    defaults: Any = torch.cuda.default_generators
    assert defaults == machine.generators
    assert [generator.device.index for generator in defaults] == [0, 1]
    assert torch.cuda.initial_seed() == FIRST_SEED
    with torch.cuda.device(1):
        torch.cuda.manual_seed(4)
    assert [generator.initial_seed() for generator in machine.generators] == [FIRST_SEED, 4]
    manual_seed_all_imported_before(5)
    assert [generator.initial_seed() for generator in machine.generators] == [5, 5]
    torch.cuda.seed_all()
    assert machine.generators[0].initial_seed() == machine.generators[1].initial_seed() != 5


def test_one_seed_is_for_all(drive: Drive) -> None:
    machine = drive("cuda:2")

    torch.manual_seed(11)

    assert torch.cuda.initial_seed() == torch.initial_seed() == 11
    assert [generator.initial_seed() for generator in machine.generators] == [11, 11]


def test_a_seed_given_before_the_cards_are_there_reaches_them() -> None:
    from pytest_llmdevice.simulation import driver
    from pytest_llmdevice.simulation.tags import Tags

    machine = Machine(parse("cuda:2"))
    patches = Patches()
    torch.manual_seed(21)

    driver.install(machine, Tags(machine), patches)
    torch.cuda.init()  # type: ignore[no-untyped-call]
    patches.undo()

    assert [generator.initial_seed() for generator in machine.generators] == [21, 21]


def test_states_are_read_and_written_by_card(drive: Drive) -> None:
    machine = drive("cuda:2")

    states = torch.cuda.get_rng_state_all()
    torch.cuda.manual_seed_all(1)
    torch.cuda.set_rng_state(states[1], "cuda:1")

    assert machine.generators[0].initial_seed() == 1
    assert torch.cuda.get_rng_state(1).equal(states[1])
    torch.cuda.set_rng_state_all(states)
    assert torch.cuda.get_rng_state("cuda").equal(states[0])


def test_a_fork_of_the_random_numbers_gives_them_back(drive: Drive) -> None:
    drive("cuda:2")
    before = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]

    with torch.random.fork_rng(devices=[0, 1]):
        torch.manual_seed(99)

    after = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    assert all(map(torch.equal, before, after))


def test_drawing_moves_the_cards_numbers_and_not_the_cpus(drive: Drive) -> None:
    machine = drive("cuda:2")
    torch.manual_seed(3)
    cpu = torch.get_rng_state()
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))

    with drawing(machine.generators[1]):
        first = torch.rand(2)
    with drawing(machine.generators[1]):
        second = torch.rand(2)

    assert torch.equal(torch.cat([first, second]), expected)
    assert torch.get_rng_state().equal(cpu)
    assert machine.generators[0].get_state().equal(cpu)


def test_drawing_on_one_card_inside_another(drive: Drive) -> None:
    machine = drive("cuda:2")
    torch.cuda.manual_seed_all(1)
    machine.generators[1].manual_seed(2)
    one, other = (torch.Generator().manual_seed(seed) for seed in (1, 2))

    with drawing(machine.generators[0]):
        drawn = [torch.rand(1)]
        with drawing(machine.generators[0]):
            drawn.append(torch.rand(1))
        with drawing(machine.generators[1]):
            elsewhere = torch.rand(2)
        drawn.append(torch.rand(1))

    assert torch.equal(torch.cat(drawn), torch.cat([torch.rand(1, generator=one) for _ in range(3)]))
    assert torch.equal(elsewhere, torch.rand(2, generator=other))


def test_an_error_while_drawing_changes_nothing_on_the_cpu(drive: Drive) -> None:
    machine = drive("cuda")
    cpu = torch.get_rng_state()

    with pytest.raises(RuntimeError, match="shape"), drawing(machine.generators[0]):
        torch.rand(2).reshape(3)

    assert torch.get_rng_state().equal(cpu)


def test_a_generator_of_another_kind_is_refused(drive: Drive) -> None:
    drive("cuda:2")

    check_generator(torch.Generator("cuda:1"), torch.device("cuda:0"))
    check_generator(None, torch.device("cuda:0"))
    with pytest.raises(RuntimeError, match=r"^Expected a 'cuda' device type for generator but found 'cpu'$"):
        check_generator(torch.Generator(), torch.device("cuda:0"))
    with pytest.raises(RuntimeError, match=r"^Expected a 'cpu' device type for generator but found 'cuda'$"):
        check_generator(torch.Generator("cuda"), torch.device("cpu"))
    assert generator_device(torch.Generator("cuda:1")) == torch.device("cuda:1")
    assert generator_device(3) is None
