"""One model on several cards by `torch.nn.DataParallel`, into which transformers' Trainer wraps by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import parallel

from pytest_llmdevice.simulation import simulate

# It has no types.
comm: Any = parallel.comm
CUDA0, CUDA1, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")


def test_a_batch_is_shared_out_and_gathered() -> None:
    torch.manual_seed(0)
    first = nn.Linear(4, 4)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 2))
    batch = torch.randn(6, 4)
    expected: torch.Tensor = model(batch)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    gradient = first.weight.grad
    assert gradient is not None
    gradient = gradient.clone()
    seen: list[torch.device] = []

    with simulate("cuda:2"):
        model.zero_grad()
        model.cuda()
        model[1].register_forward_hook(lambda _module, _given, result: seen.append(result.device))
        result = nn.DataParallel(model)(batch.cuda())
        result.sum().backward()

        assert sorted(map(str, seen)) == ["cuda:0", "cuda:1"]
        assert result.device == CUDA0
        assert torch.allclose(result.cpu(), expected)
        moved = first.weight.grad
        assert moved is not None
        assert moved.device == CUDA0
        assert torch.allclose(moved.cpu(), gradient)


def test_what_it_is_made_of() -> None:
    with simulate("cuda:2"):
        tensor = torch.arange(6.0, device="cuda:0")

        parts = comm.scatter(tensor, [0, 1], [4, 2])
        assert [(part.device, part.tolist()) for part in parts] == [(CUDA0, [0, 1, 2, 3]), (CUDA1, [4, 5])]
        assert comm.gather(parts, destination=1).device == CUDA1
        assert comm.gather(parts, destination="cpu").tolist() == tensor.tolist()
        assert [part.device for part in comm.broadcast(tensor, [0, 1])] == [CUDA0, CUDA1]
        copies = comm.broadcast_coalesced([tensor, tensor + 1], [0, 1])
        assert [[part.device for part in row] for row in copies] == [[CUDA0] * 2, [CUDA1] * 2]


@pytest.mark.parametrize("kwargs", [{"fused": True}, {"foreach": True}, {}])
def test_an_optimizer_steps_on_two_cards(kwargs: dict[str, bool]) -> None:
    with simulate("cuda:2"):
        first, second = nn.Linear(4, 4).to("cuda:0"), nn.Linear(4, 4).to("cuda:1")
        before = [parameter.clone() for parameter in (*first.parameters(), *second.parameters())]
        optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()], **kwargs)  # type: ignore[arg-type]
        second(first(torch.ones(2, 4, device="cuda:0")).to("cuda:1")).sum().backward()
        optimizer.step()

        for parameter, old in zip((*first.parameters(), *second.parameters()), before, strict=True):
            assert not torch.equal(parameter, old)
            assert optimizer.state[parameter]["exp_avg"].device == parameter.device == old.device
