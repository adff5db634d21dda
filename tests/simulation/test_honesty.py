"""Whatever a tensor of a simulated card is written with says that the card is simulated."""

from __future__ import annotations

import io
import logging
import pprint
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest
import torch
import torch.utils.dlpack

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation import simulate

HERE = "device='cuda:1 (simulated)'"


@pytest.fixture
def card() -> Iterator[torch.Tensor]:
    with simulate("cuda:2"):
        yield torch.arange(3.0, device="cuda:1")


WRITTEN: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "1-d": (lambda it: it, f"tensor([0., 1., 2.], {HERE})"),
    "0-d": (lambda it: it[1], f"tensor(1., {HERE})"),
    "empty": (lambda it: it[:0], f"tensor([], {HERE})"),
    "empty with a shape": (lambda it: torch.empty(0, 2, device=it.device), f"tensor([], {HERE}, size=(0, 2))"),
    "dtype": (lambda it: it.half(), f"tensor([0., 1., 2.], {HERE}, dtype=torch.float16)"),
    "requires grad": (lambda it: it.clone().requires_grad_(), f"tensor([0., 1., 2.], {HERE}, requires_grad=True)"),
    "grad_fn": (
        lambda it: it.clone().requires_grad_() * 2,
        f"tensor([0., 2., 4.], {HERE}, grad_fn=<MulBackward0>)",
    ),
    "parameter": (
        torch.nn.Parameter,
        f"Parameter containing:\ntensor([0., 1., 2.], {HERE}, requires_grad=True)",
    ),
    "frozen parameter": (
        lambda it: torch.nn.Parameter(it, requires_grad=False),
        f"Parameter containing:\ntensor([0., 1., 2.], {HERE})",
    ),
    "buffer": (torch.nn.Buffer, f"tensor([0., 1., 2.], {HERE})"),
    "large": (
        lambda it: torch.zeros(2000, device=it.device),
        f"tensor([0., 0., 0.,  ..., 0., 0., 0.], {HERE})",
    ),
    "in a list": (lambda it: [it, torch.ones(1)], f"[tensor([0., 1., 2.], {HERE}), tensor([1.])]"),
    "in a dict": (lambda it: {"a": it}, f"{{'a': tensor([0., 1., 2.], {HERE})}}"),
    "complex": (lambda it: it[:1] * 1j, f"tensor([0.+0.j], {HERE})"),
    "view": (lambda it: it.view(3)[1:], f"tensor([1., 2.], {HERE})"),
    "detached": (lambda it: it.clone().requires_grad_().detach(), f"tensor([0., 1., 2.], {HERE})"),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    "write", [repr, lambda it: f"{it!r}", pprint.pformat, str], ids=["repr", "!r", "pprint", "str"]
)
def test_the_device_and_that_it_is_simulated_are_written(
    name: str, write: Callable[[Any], str], card: torch.Tensor
) -> None:
    make, text = WRITTEN[name]

    assert " ".join(write(make(card)).split()) == " ".join(text.split())


@pytest.mark.parametrize(
    "write",
    [lambda it: f"{it}", "{}".format, lambda it: "%s" % it, lambda it: format(it, "")],  # noqa: UP031
    ids=["f", "format", "percent", "specification"],
)
def test_a_text_with_a_tensor_in_it_says_so_too(write: Callable[[Any], str], card: torch.Tensor) -> None:
    assert write(card) == f"tensor([0., 1., 2.], {HERE})"


def test_a_number_is_formatted_as_a_number(card: torch.Tensor) -> None:
    assert f"{card[2]:.2f} {card[1]}" == "2.00 1.0"


def test_print_and_logs_say_so(card: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        print(card, [card])  # noqa: T201
    with caplog.at_level(logging.INFO):
        logging.getLogger("it").info("%s", card)

    assert out.getvalue() == f"tensor([0., 1., 2.], {HERE}) [tensor([0., 1., 2.], {HERE})]\n"
    assert caplog.messages == [f"tensor([0., 1., 2.], {HERE})"]


def test_sparse_tensors_say_so(card: torch.Tensor) -> None:
    sparse = torch.eye(2, device="cuda:1").to_sparse()

    assert repr(sparse).count(HERE) == 1
    assert repr(sparse.coalesce()).endswith(f"{HERE}, size=(2, 2), nnz=2, layout=torch.sparse_coo)")


PLAIN: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.ones(2),
    "0-d": lambda: torch.tensor(1.5),
    "empty": lambda: torch.empty(0, 3),
    "parameter": lambda: torch.nn.Parameter(torch.ones(1)),
    "gradient": lambda: torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
    "meta": lambda: torch.ones(2, device="meta"),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "module": lambda: torch.nn.Linear(1, 1, bias=False),
    "device": lambda: torch.device("cuda:1"),
    "list": lambda: [torch.ones(1), torch.zeros(())],
}


@pytest.mark.parametrize("name", PLAIN)
def test_all_else_is_written_as_outside(name: str) -> None:
    make = PLAIN[name]
    outside = repr(make()), str(make()), f"{make()}"

    with simulate("cuda:2"):
        repr(torch.ones(1, device="cuda:1"))
        assert (repr(make()), str(make()), f"{make()}") == outside


def test_an_error_while_writing_leaves_no_note_behind(card: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch._tensor_str, "_str_intern", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repr(card)

    assert repr(torch.ones(1)) == "tensor([1.])"


def test_storages_say_where_they_are(card: torch.Tensor) -> None:
    assert "[torch.storage.UntypedStorage(device=cuda:1) of size 12]" in repr(card.untyped_storage())


def test_mps_has_no_index_less_honest_text() -> None:
    with simulate("mps"):
        assert repr(torch.ones(1, device="mps")) == "tensor([1.], device='mps:0 (simulated)')"


def test_numpy_cannot_read_a_card(card: torch.Tensor) -> None:
    import numpy as np

    message = (
        r"^can't convert cuda:1 device type tensor to numpy\. Use Tensor\.cpu\(\) to copy the tensor to host memory "
        r"first\.$"
    )
    tried: list[Callable[[], Any]] = [
        card.numpy,
        lambda: np.asarray(card),
        lambda: np.array([card[0], card]),
        lambda: np.add(card, 1),
        card[:0].numpy,
        card.__array__,
    ]
    for read in tried:
        with pytest.raises(TypeError, match=message):
            read()
    assert card.cpu().numpy().tolist() == card.numpy(force=True).tolist() == [0.0, 1.0, 2.0]
    assert np.asarray(torch.ones(2)).tolist() == [1.0, 1.0]


def test_nor_can_it_through_another_door(card: torch.Tensor) -> None:
    import numpy as np

    with pytest.raises((BufferError, RuntimeError, TypeError, SimulationError)):
        np.from_dlpack(card)


def test_another_library_is_not_told_that_it_is_on_the_cpu(card: torch.Tensor) -> None:
    shared: torch.Tensor | None = None
    try:
        shared = torch.utils.dlpack.from_dlpack(card)
    except Exception as error:  # noqa: BLE001
        assert "simulat" in str(error)  # noqa: PT017
    assert shared is None or shared.device == torch.device("cuda:1")
