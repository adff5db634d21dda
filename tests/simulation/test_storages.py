"""Where a tensor is survives copies, files and whatever shares its storage."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice.simulation import simulate

STORAGE: Any = torch.UntypedStorage
CUDA0, CUDA1, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")


@pytest.fixture(autouse=True)
def _cards() -> Iterator[None]:
    with simulate("cuda:2"):
        yield


def share(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_duplicate_is_where_its_original_is(duplicate: Callable[[Any], Any]) -> None:
    parameter = nn.Parameter(torch.ones(2, device="cuda:1"))
    layer = nn.BatchNorm1d(2).cuda(1)

    assert duplicate(torch.ones(2, device="cuda:1")).device == CUDA1
    assert duplicate(torch.ones(2)).device == CPU
    assert duplicate(parameter).device == CUDA1
    assert type(duplicate(parameter)) is nn.Parameter
    assert duplicate(parameter).requires_grad
    assert {tensor.device for tensor in duplicate(layer).state_dict().values()} == {CUDA1}


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["deepcopy", "pickle"]
)
def test_duplicates_share_what_the_originals_shared_and_nothing_else(duplicate: Callable[[Any], Any]) -> None:
    base = torch.arange(4.0, device="cuda:1")
    whole, part, other = duplicate([base, base[2:], base.clone()])

    # Pickle, unlike deepcopy, writes a view as a storage of its own.
    assert share(whole, part) is (duplicate is copy.deepcopy)
    assert not share(whole, base)
    assert not share(whole, other)
    assert {whole.device, part.device, other.device} == {CUDA1}
    assert part.tolist() == [2.0, 3.0]


def test_tied_weights_stay_tied() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second).cuda(1)
    twin = copy.deepcopy(model)

    assert model[0].weight is model[1].weight
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight.device == CUDA1


def test_what_shares_a_storage_shares_its_place() -> None:
    base: Any = torch.arange(6.0, device="cuda:1")

    views = [base[1:], base.view(2, 3), base.reshape(3, 2), base.t(), base[None], base.detach(), base.data, *base]
    views += [*base.chunk(2), *base.split(2), base.unflatten(0, (2, 3)), base.as_strided((2,), (1,)), base[0]]
    views += [nn.Parameter(base), base.view(torch.int32), base.expand(2, 6), base.narrow(0, 1, 2), base.squeeze()]

    assert [view for view in views if view.device != CUDA1 or not share(view, base)] == []


def test_data_may_change_the_place_as_in_pytorch() -> None:
    parameter = nn.Parameter(torch.ones(2))
    alias = parameter.detach()

    parameter.data = parameter.data.cuda(1)

    assert (parameter.device, alias.device) == (CUDA1, CPU)
    parameter.data = torch.zeros(2)
    assert parameter.device == CPU


@pytest.mark.parametrize("source", ["tensor", "storage"])
def test_set_wants_a_storage_of_the_same_device(source: str) -> None:
    here, there = torch.ones(2, device="cuda:0"), torch.ones(3, device="cuda:1")
    given: Any = there if source == "tensor" else there.untyped_storage()

    near = torch.empty(0, device="cuda:1").set_(given)
    assert (near.device, share(near, there)) == (CUDA1, True)
    for tensor in (here, torch.ones(2)):
        message = (
            f'Attempted to set the storage of a tensor on device "{tensor.device}" to a storage on different device '
            '"cuda:1".'
        )
        with pytest.raises(RuntimeError, match=message):
            tensor.set_(given)


def test_set_without_a_source_empties_a_tensor_where_it_is() -> None:
    tensor: Any = torch.ones(2, device="cuda:1")

    tensor.set_()

    assert (tensor.device, tensor.numel()) == (CUDA1, 0)


def test_storages_move_and_tell_where_they_are() -> None:
    storage: Any = torch.arange(3.0, device="cuda:1").untyped_storage()

    assert (storage.device, storage.get_device(), storage.is_cuda) == (CUDA1, 1, True)
    assert storage.cpu().device == CPU
    assert storage.cpu().get_device() == -1
    assert not storage.cpu().is_cuda
    assert storage.cuda().device == CUDA0
    assert storage.cuda(1) is storage.to(device="cuda:1") is storage
    assert storage.to(device="cuda:0").tolist() == storage.tolist()
    assert storage.clone().device == copy.copy(storage).device == copy.deepcopy(storage).device == CUDA1
    assert storage.clone().data_ptr() != storage.data_ptr()
    assert storage.is_shared()
    with torch.cuda.device(1):
        assert storage.cpu().cuda().device == CUDA1
    tensor: Any = torch.ones(2, device="cuda:1")
    typed = tensor.storage()
    assert (typed.device, typed.type(), typed.cpu().device) == (CUDA1, "torch.cuda.FloatStorage", CPU)


@pytest.fixture(autouse=True)
def _no_warning_of_typed_storages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.storage, "_warn_typed_storage_removal", lambda *_, **__: None)


def test_storages_are_made_on_a_card() -> None:
    kind = STORAGE

    assert kind(8, device="cuda:1").device == kind(8, device=torch.device("cuda", 1)).device == CUDA1
    assert kind(8).device == kind(8, device="cpu").device == CPU
    assert kind(8, device="meta").device.type == "meta"
    assert isinstance(kind(8, device="cuda"), torch.UntypedStorage)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        kind(8, device="cuda:2")


def test_a_resized_storage_stays_and_is_counted() -> None:
    storage: Any = STORAGE(512, device="cuda:1")
    before = torch.cuda.memory_allocated(1)

    storage.resize_(4096)

    assert (storage.device, torch.cuda.memory_allocated(1) - before) == (CUDA1, 3584)


PLACES: dict[str, tuple[Any, tuple[torch.device, torch.device]]] = {
    "None": (None, (CUDA1, CPU)),
    "cpu": ("cpu", (CPU, CPU)),
    "cuda": ("cuda", (CUDA0, CUDA0)),
    "cuda:0": ("cuda:0", (CUDA0, CUDA0)),
    "device": (torch.device("cuda:0"), (CUDA0, CUDA0)),
    "device cpu": (torch.device("cpu"), (CPU, CPU)),
    "dict": ({"cuda:1": "cuda:0"}, (CUDA0, CPU)),
    "dict to cpu": ({"cuda:1": "cpu"}, (CPU, CPU)),
    "dict of another": ({"cuda:0": "cpu"}, (CUDA1, CPU)),
    "callable": (lambda storage, _: storage.cuda(0), (CUDA0, CUDA0)),
    "callable to cpu": (lambda storage, _: storage, (CPU, CPU)),
    "callable that leaves it": (lambda *_: None, (CUDA1, CPU)),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_loaded_where_it_was_or_where_it_is_told(name: str, weights_only: bool, zipped: bool) -> None:
    place, expected = PLACES[name]
    tensor, file = torch.arange(4.0, device="cuda:1"), io.BytesIO()
    torch.save({"all": tensor, "part": tensor[2:], "cpu": torch.ones(1)}, file, _use_new_zipfile_serialization=zipped)
    file.seek(0)

    loaded = torch.load(file, map_location=place, weights_only=weights_only)

    assert (loaded["all"].device, loaded["cpu"].device) == expected
    assert loaded["part"].device == expected[0]
    assert share(loaded["all"], loaded["part"])
    assert not share(loaded["all"], tensor)
    assert loaded["part"].tolist() == [2.0, 3.0]


def test_a_default_device_is_not_for_files() -> None:
    file = io.BytesIO()
    torch.save([torch.ones(2), torch.ones(2, device="cuda:0")], file)
    file.seek(0)

    with torch.device("cuda:1"):
        assert [tensor.device for tensor in torch.load(file)] == [CPU, CUDA0]


def test_a_file_of_a_card_that_is_not_there(tmp_path: Path) -> None:
    torch.save(torch.ones(1, device="cuda:1"), tmp_path / "it.pt")

    with pytest.raises(RuntimeError, match=r"CUDA device 7 but torch.cuda.device_count\(\) is 2"):
        torch.load(tmp_path / "it.pt", map_location="cuda:7")


def test_a_module_and_an_optimizer_are_loaded_where_they_were(tmp_path: Path) -> None:
    layer = nn.Linear(2, 1).cuda(1)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2, device="cuda:1")).sum().backward()
    optimizer.step()
    torch.save({"layer": layer, "state": optimizer.state_dict()}, tmp_path / "it.pt")

    loaded = torch.load(tmp_path / "it.pt", weights_only=False)

    assert loaded["layer"].weight.device == CUDA1
    state = loaded["state"]["state"][0]
    assert {name: value.device for name, value in state.items()} == {"step": CPU, "exp_avg": CUDA1, "exp_avg_sq": CUDA1}
    again = torch.optim.AdamW(nn.Linear(2, 1).cuda(0).parameters())
    again.load_state_dict(loaded["state"])
    moved = next(iter(again.state.values()))
    assert {name: value.device for name, value in moved.items()} == {"step": CPU, "exp_avg": CUDA0, "exp_avg_sq": CUDA0}


def test_safetensors_reads_onto_cards(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load, load_file, load_model, save, save_file, save_model

    path = tmp_path / "it.safetensors"
    save_file({"card": torch.arange(4.0, device="cuda:1"), "cpu": torch.ones(2)}, path)

    places: dict[Any, torch.device] = {"cpu": CPU, "cuda:1": CUDA1, "cuda": CUDA0, 1: CUDA1}
    for device, expected in places.items():
        loaded = load_file(path, device=device)
        assert {tensor.device for tensor in loaded.values()} == {expected}
        assert loaded["card"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert load(path.read_bytes())["card"].device == CPU
    assert load(save({"a": torch.ones(2, device="cuda:1")}))["a"].tolist() == [1.0, 1.0]
    opener: Any = safe_open
    with opener(path, framework="pt", device="cuda:1") as file:
        assert file.get_tensor("card").device == file.get_slice("card")[1:3].device == CUDA1
        with pytest.raises(RuntimeError, match="cuda:1 and cpu"):
            file.get_tensor("card") + torch.ones(4)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        load_file(path, device="cuda:7")
    layer = nn.Linear(2, 2).cuda(1)
    save_model(layer, str(path))
    load_model(layer, path, device="cuda:0")
    assert layer.weight.device == CUDA1


def test_safetensors_counts_what_it_loads(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({"a": torch.zeros(1024), "b": torch.zeros(3)}, tmp_path / "it.safetensors")
    before = torch.cuda.memory_allocated(1)

    loaded = load_file(tmp_path / "it.safetensors", device="cuda:1")

    assert torch.cuda.memory_allocated(1) - before == 4096 + 512
    del loaded
    assert torch.cuda.memory_allocated(1) == before
