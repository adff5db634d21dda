"""Tensors that are distributed over one rank are on the card of their shard, and compute there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
import torch.distributed as dist
{early}
from pytest_llmdevice import simulate

with simulate("cuda:2"):
    dist.init_process_group("gloo", init_method="file://{file}", rank=0, world_size=1)
    torch.cuda.set_device(1)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cuda", (1,))
    shard = distribute_tensor(torch.ones(4, 3, device="cuda:1"), mesh, [Shard(0)])
    print(shard.device, shard.to_local().device, shard.full_tensor().device)
    print("device='cuda:1 (simulated)'" in repr(shard))
    print((shard + shard).to_local().device, (shard + shard).full_tensor().sum().item())
    dist.destroy_process_group()
whole = torch.ones(2)
print(whole.device)
"""


@pytest.mark.parametrize("early", ["", "import torch.distributed.tensor"], ids=["imported inside", "imported before"])
def test_a_distributed_tensor_is_on_the_card_of_its_shard(tmp_path: Path, early: str) -> None:
    # A process group belongs to a whole process.
    script = SCRIPT.format(early=early, file=tmp_path / "group")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == [
        "cuda:1 cuda:1 cuda:1",
        "True",
        "cuda:1 24.0",
        "cpu",
    ], done.stderr
