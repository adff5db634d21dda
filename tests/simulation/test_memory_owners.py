"""What the error of a full card says of who fills it, and that all reports of a card's memory agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.memory import format_size

CUDA: Any = torch.cuda
MIB = 2**20


@pytest.fixture(autouse=True)
def _cards() -> Iterator[None]:
    with simulate("cuda:h100+t4,memory=64MiB+16MiB"):
        yield


def blob(mebibytes: int, device: str = "cuda:0") -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8, device=device)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(1024, width, bias=False)
        self.register_buffer("table", torch.zeros(1024, 256))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1024, 1024)
        self.blocks = nn.ModuleList([Block(2048), Block(1024)])
        self.head = nn.Linear(1024, 1024, bias=False)
        self.head.weight = self.embed.weight


def note_of(error: BaseException) -> str:
    (note,) = error.__notes__
    return note


def test_the_error_names_the_modules_that_hold_most() -> None:
    model = Model().cuda()
    rest = blob(3)

    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 50\.00 MiB\. GPU 0") as caught:
        blob(50)

    assert note_of(caught.value).splitlines() == [
        "The 21.00 MiB that are held, by the module that owns them:",
        "     8.00 MiB  blocks.0.up (Model)",
        "     4.00 MiB  embed (Model)",
        "     4.00 MiB  blocks.1.up (Model)",
        "  1024.00 KiB  blocks.0 (Model)",
        "  1024.00 KiB  blocks.1 (Model)",
        "     3.00 MiB  tensors of no module",
    ]
    assert "by the module" not in str(caught.value)
    assert model.head.weight.nbytes + rest.nbytes == 7 * MIB


def test_what_is_named_is_all_that_is_held() -> None:
    model = Model().cuda()
    weight = model.get_parameter("blocks.0.up.weight")
    weight.grad = torch.ones_like(weight)
    other = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(12)]).cuda()

    with pytest.raises(torch.OutOfMemoryError) as caught:
        blob(60)

    lines = note_of(caught.value).splitlines()
    assert "     8.00 MiB  gradients of blocks.0.up (Model)" in lines
    assert any(re.fullmatch(r" +[\d.]+ (MiB|KiB)  \d+ more modules", line) for line in lines)
    factors = {"MiB": MIB, "KiB": 1024}
    sizes = [float(number) * factors[unit] for number, unit in (line.split()[:2] for line in lines[1:])]
    assert sum(sizes) == CUDA.memory_allocated() == 29 * MIB
    assert len(other) == 12


def test_a_module_on_another_card_is_not_named() -> None:
    here, there = nn.Linear(1024, 1024, bias=False).cuda(1), nn.Linear(1024, 2048, bias=False).cuda(0)

    with pytest.raises(torch.OutOfMemoryError) as caught:
        blob(15, "cuda:1")

    assert note_of(caught.value).splitlines()[1:] == ["     4.00 MiB  Linear"]
    assert here.weight.device != there.weight.device


def test_a_card_that_holds_nothing_has_no_note() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        blob(65)

    assert not hasattr(caught.value, "__notes__")


def test_a_load_that_does_not_fit_says_what_was_loaded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=1024,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)

    with pytest.raises(torch.OutOfMemoryError) as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path).to("cuda:1")  # type: ignore[arg-type]

    lines = note_of(caught.value).splitlines()
    assert any("(LlamaForCausalLM)" in line and "model.layers." in line for line in lines[1:]), lines


def test_a_packed_weight_counts_with_its_state() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(1024, 1024, bias=False, quant_type="nf4", compute_dtype=torch.float32).cuda()

    with pytest.raises(torch.OutOfMemoryError) as caught:
        blob(64)

    # All but the table of 256 numbers that the library makes once in a process, for this layer or an earlier one.
    lines = note_of(caught.value).splitlines()[1:]
    table = 1024 * (lines[1:] == ["   1024 bytes  tensors of no module"])
    assert lines[0] == f"  {format_size(CUDA.memory_allocated() - table):>11}  Linear4bit"
    assert table or not lines[1:]
    assert layer.weight.quant_state is not None


def numbers(summary: str, row: str) -> list[str]:
    line = next(line for line in summary.splitlines() if line.startswith(f"| {row} "))
    return [part.strip() for part in line.strip("|").split("|")[1:]]


def test_all_reports_of_memory_agree() -> None:
    first, second = blob(10), blob(20)
    del second
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            blob(60)
    tensor = torch.empty(0, dtype=torch.uint8, device="cuda").resize_(2 * MIB)
    held = 12 * MIB

    stats, summary = CUDA.memory_stats(), CUDA.memory_summary()

    assert CUDA.memory_allocated() == held == stats["allocated_bytes.all.current"] == first.nbytes + tensor.nbytes
    assert CUDA.memory_reserved() == stats["reserved_bytes.all.current"]
    free, total = CUDA.mem_get_info()
    assert (free + CUDA.memory_reserved(), total) == (64 * MIB, 64 * MIB)
    for name in ("allocated_bytes", "allocation", "reserved_bytes", "active_bytes"):
        value = {kind: stats[f"{name}.all.{kind}"] for kind in ("current", "peak", "allocated", "freed")}
        assert value["allocated"] - value["freed"] == value["current"] <= value["peak"] <= value["allocated"], name
    assert stats["num_ooms"] == 2
    assert "CUDA OOMs: 2" in summary
    assert numbers(summary, "Allocated memory") == ["12288 KiB", "30720 KiB", "32768 KiB", "20480 KiB"]
    assert numbers(summary, "GPU reserved memory")[0] == f"{CUDA.memory_reserved() // 1024} KiB"
    assert numbers(CUDA.memory_summary(1, abbreviated=True), "Allocated memory") == ["0 B"] * 4


@pytest.mark.parametrize("machine", ["rocm:2", "cuda:h100-1g.10gb", "cuda"])
def test_every_card_of_cuda_has_a_summary(machine: str) -> None:
    # Of one machine at a time.
    from pytest_llmdevice.simulation import active

    outer = active()
    assert outer is not None
    outer.__exit__(None, None, None)
    try:
        with simulate(machine):
            assert "device ID 0" in CUDA.memory_summary()
            held = torch.ones(1024, device="cuda")
            assert numbers(CUDA.memory_summary("cuda:0"), "Allocated memory")[0] == f"{held.nbytes} B"
    finally:
        outer.__enter__()
