"""A loader for several processes: transformers' own plan, PyTorch's FSDP2 and PyTorch's DDP, by the strategy."""

import os

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig


def load(checkpoint, cell):
    if cell.strategy == "tensor-parallel":
        plan = DistributedConfig(tp_plan="auto")
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, distributed_config=plan)
    on_card = cell.torch_device.type == "cuda"
    if not dist.is_initialized():
        if on_card:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if on_card else "gloo")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.torch_device).eval()
    if cell.strategy == "fsdp":
        for layer in model.model.layers:
            fully_shard(layer)
        return fully_shard(model)
    return DistributedDataParallel(model, device_ids=[cell.torch_device] if on_card else None)


def generate(loaded, prompts, max_new_tokens):
    model = loaded.module if isinstance(loaded, DistributedDataParallel) else loaded
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=next(model.buffers()).device)
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers
