"""What a simulated cell costs beside the same cell on the CPU: load, and generate eight tokens greedily."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.zoo import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

CELLS = [
    Cell("llama", "cpu", "bfloat16"),
    Cell("llama", "cpu", "float32", strategy="device-map"),
    Cell("qwen2", "cpu", "float16", "nf4", "device-map"),
    Cell("gpt2", "cpu", "float16", "int8", "device-map"),
    Cell("gemma3", "cpu", "bfloat16"),
    Cell("mixtral", "cpu", "bfloat16"),
    Cell("deepseek-v3", "cpu", "bfloat16"),
    Cell("t5", "cpu", "float32", strategy="auto"),
    Cell("mamba", "cpu", "float32"),
]
TURNS = 25


def seconds(cell: Cell, folder: Path, prompts: Any, machine: Any) -> float:
    """Processor time of one load and one generation."""
    started = time.process_time()
    with machine:
        model: Any = BuiltinTarget().load(str(folder), cell)
        generate(model, prompts, 8)
        del model
    return time.process_time() - started


def main() -> None:
    """Print the ratio of each cell, and the median of all."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    machine = simulate("cuda:2")
    ratios = []
    for cell in CELLS:
        card = replace(cell, device="cuda:0" if cell.strategy == "auto" else "cuda:1", simulated=True)
        folder = checkpoint(cell.model)
        prompts = encode(load_tokenizer(folder))
        runs = [(cell, nullcontext()), (card, machine)]
        for warm_up in runs:
            seconds(warm_up[0], folder, prompts, warm_up[1])
        took: dict[Cell, list[float]] = {cell: [], card: []}
        for turn in range(TURNS):
            for each, machine_of_it in runs if turn % 2 else runs[::-1]:
                took[each].append(seconds(each, folder, prompts, machine_of_it))
        # The fastest of each: what else runs on the machine only ever adds.
        ratios.append(min(took[card]) / min(took[cell]))
        print(f"{cell.id:34} {ratios[-1]:.2f}x  ({min(took[cell]) * 1e3:.1f} ms, {min(took[card]) * 1e3:.1f} ms)")
    print(f"{'median of all cells':34} {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
