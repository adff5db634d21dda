"""What each check of the suite costs on a tiny model: the longest over several cells, each the fastest of three."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.reference import reference
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.zoo import checkpoint

CELLS = [
    Cell("llama", "cpu", "float32"),
    Cell("gemma3", "cpu", "bfloat16"),
    Cell("qwen2", "cpu", "float16", "nf4", "device-map"),
    Cell("mixtral", "cpu", "bfloat16"),
    Cell("mamba", "cpu", "float32"),
    Cell("t5", "cpu", "float32"),
    Cell("gpt2", "cpu", "float32", strategy="disk-offload"),
    Cell("llama", "cuda:1", "float16", strategy="device-map", simulated=True),
    Cell("deepseek-v3", "cuda:0", "bfloat16", strategy="split", simulated=True),
]
TURNS = 3


def look(cell: Cell, folder: Path, prompts: Any) -> dict[str, float]:
    """Processor seconds of each check on one loaded cell. What several of them need is counted apart."""
    expected = reference(str(folder), prompts, NEW_TOKENS)
    took: dict[str, float] = {}
    with simulate("cuda:2") if cell.simulated else nullcontext():
        loaded = Loaded.load(BuiltinTarget(), folder, cell)
        exam = Examination(BuiltinTarget(), str(folder), cell, loaded, prompts, expected)
        for name in ("expectations", "generated"):
            started = time.process_time()
            getattr(exam, name)
            took[f"({name}, shared)"] = time.process_time() - started
        for name in exam.checks():
            started = time.process_time()
            result = exam.check(name)
            took[name] = time.process_time() - started
            if not result.passed:
                print(result.message(cell.id))
        loaded.release()
    return took


def main() -> None:
    """Print, for each check, the seconds of the cell where it takes longest."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    worst: dict[str, tuple[float, str]] = {}
    for cell in CELLS:
        folder = checkpoint(cell.model)
        prompts = encode(load_tokenizer(folder))
        turns = [look(cell, folder, prompts) for _ in range(TURNS)]
        for name in turns[0]:
            fastest = min(turn[name] for turn in turns)
            worst[name] = max(worst.get(name, (0.0, "")), (fastest, cell.id))
    for name, (seconds, where) in sorted(worst.items(), key=lambda entry: -entry[1][0]):
        print(f"{seconds:6.3f} s  {name:<20} {where}")


if __name__ == "__main__":
    main()
