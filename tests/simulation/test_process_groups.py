"""Process groups of simulated cards: what they move, where it then is, and what NCCL refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

# What the scripts import, once for all of their processes.
import torch.distributed.fsdp
import torch.distributed.tensor  # noqa: F401
from in_ranks import in_ranks

from pytest_llmdevice import simulate

HEAD = """
import os
import torch
import torch.distributed as dist
from pytest_llmdevice import simulate

rank = int(os.environ["RANK"])


def said(function):
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[-1]


def on(*index):
    return torch.ones(2, device=torch.device("cuda", *index))


with simulate("cuda:2"):
    torch.cuda.set_device(rank)
"""


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    with simulate("cuda:2"):
        pass


def run(*statements: str) -> list[list[str]]:
    """What each of two ranks prints that has run `statements` on the simulated machine."""
    return in_ranks(HEAD + "".join(f"    {line}\n" for text in statements for line in text.strip().splitlines()))


def test_collectives_of_nccl_move_values_and_leave_tensors_on_their_cards() -> None:
    first, second = run(
        """
dist.init_process_group("nccl")
tensor = on()
dist.all_reduce(tensor)
parts = [on(), on()]
dist.all_gather(parts, tensor + rank)
import torch.distributed._functional_collectives as functional
functioned = functional.all_reduce(on(), "sum", dist.group.WORLD)
objects = [None, None]
dist.all_gather_object(objects, rank)
dist.send(on(), 1) if rank == 0 else dist.recv(tensor, 0)
dist.barrier(dist.new_group([0, 1]))
dist.barrier(device_ids=[rank])
print(tensor.device, parts[1].tolist(), parts[1].device, functioned.device, (functioned + 1).tolist(), objects)
print(dist.get_backend(), dist.group.WORLD._device_types, dist.is_nccl_available())
dist.destroy_process_group()
"""
    )
    assert first == [
        "cuda:0 [3.0, 3.0] cuda:0 cuda:0 [3.0, 3.0] [0, 1]",
        "nccl [device(type='cuda')] True",
    ]
    assert second[0] == "cuda:1 [3.0, 3.0] cuda:1 cuda:1 [3.0, 3.0] [0, 1]"


def test_nccl_refuses_tensors_that_are_on_no_card_or_on_a_wrong_one(tmp_path: Path) -> None:
    # The second group meets elsewhere: where the first met, one rank may still find what the other is about to end.
    ranks = run(
        f"""
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
import torch.distributed._functional_collectives as functional
print(said(lambda: dist.all_reduce(torch.ones(2))))
print(said(lambda: functional.all_reduce(torch.ones(2), "sum", dist.group.WORLD)))
print(said(lambda: dist.broadcast(on(1 - rank), 0)))
dist.destroy_process_group()
dist.init_process_group("cpu:gloo,cuda:nccl", init_method="file://{tmp_path}/again", rank=rank, world_size=2)
print(said(lambda: dist.all_reduce(torch.ones(2))))
print(said(lambda: dist.all_reduce(on())))
dist.destroy_process_group()
"""
    )
    without = "RuntimeError: No backend type associated with device type cpu"
    elsewhere = "DistBackendError: Attempt to perform collective on tensor not on device passed to init_process_group"
    assert ranks == [[without, without, elsewhere, "None", "None"]] * 2


def test_what_is_sent_lies_dense_in_memory_and_arrives_as_it_lies() -> None:
    first, second = run(
        """
dist.init_process_group("nccl")
tensor = torch.arange(4.0, device="cuda").reshape(2, 2)
print(said(lambda: dist.broadcast(tensor.t(), 0)))
print(said(lambda: dist.send(tensor.repeat(1, 2)[:, :2], 1)) if rank == 0 else "")
got = torch.zeros(2, 2, device="cuda").t() if rank else tensor.t()
print(said(lambda: dist.send(got, 1) if rank == 0 else dist.recv(got, 0)))
print(got.tolist(), got.device)
dist.destroy_process_group()
"""
    )
    layout = "ValueError: Tensors must be contiguous"
    assert first[:2] == [layout, "ValueError: Tensors for P2P must be non-overlapping and dense"]
    assert second[0] == layout
    assert (first[3], second[3]) == ("[[0.0, 2.0], [1.0, 3.0]] cuda:0", "[[0.0, 2.0], [1.0, 3.0]] cuda:1")


def test_two_ranks_cannot_use_one_card_but_each_may_see_only_its_own() -> None:
    ranks = run(
        """
dist.init_process_group("nccl")
print(said(lambda: dist.all_reduce(on(0))))
dist.destroy_process_group()
"""
    )
    assert ranks == [["Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000"]] * 2
    hidden = HEAD.replace("rank = int", "os.environ['CUDA_VISIBLE_DEVICES'] = os.environ['RANK']\nrank = int")
    script = (
        hidden.replace("set_device(rank)", "set_device(0)")
        + """
    dist.init_process_group("nccl")
    print(said(lambda: dist.all_reduce(on(0))))
"""
    )
    assert in_ranks(script) == [["None"]] * 2


@pytest.mark.parametrize("wrapper", ["data", "sharded", "sharded by hand"])
def test_pytorch_s_own_wrappers_run_and_their_gradients_are_on_the_card(wrapper: str) -> None:
    made = {
        "data": "wrapped = torch.nn.parallel.DistributedDataParallel(layer, device_ids=[rank])",
        "sharded": "wrapped = torch.distributed.fsdp.FullyShardedDataParallel(layer)",
        "sharded by hand": "wrapped = torch.distributed.fsdp.fully_shard(layer)",
    }[wrapper]
    ranks = run(
        f"""
dist.init_process_group("nccl")
import torch.distributed.fsdp
torch.manual_seed(0)
layer = torch.nn.Linear(4, 4).cuda()
want = layer(torch.ones(2, 4, device="cuda")).sum()
{made}
answer = wrapped(torch.ones(2, 4, device="cuda")).sum()
answer.backward()
print(answer.device, next(wrapped.parameters()).grad.device, torch.allclose(answer, want))
dist.destroy_process_group()
"""
    )
    assert ranks == [["cuda:0 cuda:0 True"], ["cuda:1 cuda:1 True"]]


def test_distributed_tensors_compute_with_their_shards_on_the_card() -> None:
    ranks = run(
        """
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
mesh = init_device_mesh("cuda", (2,))
weight = distribute_tensor(torch.arange(12.0, device="cuda").reshape(4, 3), mesh, [Shard(0)])
answer = torch.nn.functional.linear(distribute_tensor(torch.ones(1, 3, device="cuda"), mesh, [Replicate()]), weight)
print(weight.device, weight.to_local().shape[0], answer.to_local().device, (answer + 1).full_tensor().tolist())
print(answer.redistribute(placements=[Replicate()]).to_local().device, torch.cuda.memory_allocated(1 - rank))
dist.destroy_process_group()
"""
    )
    wanted = [[4.0, 13.0, 22.0, 31.0]]
    assert ranks == [[f"cuda:{r} 2 cuda:{r} {wanted}", f"cuda:{r} 0"] for r in range(2)]


def test_after_the_simulation_there_is_no_nccl_again() -> None:
    printed = run("pass")
    assert printed == [[], []]
    after = "print(dist.is_nccl_available(), hasattr(torch._C, '_nccl_version'))"
    script = HEAD + "    assert dist.is_nccl_available()\n" + after
    assert in_ranks(script, 1) == [["False False"]]
