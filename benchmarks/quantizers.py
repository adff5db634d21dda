"""How far torchao's and optimum-quanto's models are from dense ones, over the families of the zoo, beside each bound.

A plain load on the CPU is right by definition: what a check finds in one is printed, and is a fault of the bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.quantizers import QUANTIZERS
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.reference import reference
from pytest_llmdevice.zoo import cache_directory, checkpoint
from pytest_llmdevice.zoo.families import families

DTYPES: Final = ("float32", "bfloat16")

SEEN: Final = {
    "weights": ("values", "largest error of a packed weight"),
    "logits": ("agreement", "relative error"),
    "a batch": ("padding", "relative error"),
    "a prefix": ("prefix", "worst error"),
}
"""What is measured: the check, and its evidence."""

HEAD: Final = """# Errors of quantized models

The largest errors of torchao's and optimum-quanto's models over the families of the zoo, on the CPU, and the bounds
that the checks hold them to. Bounds are above what was seen: rows of trained models have outliers, and the errors of
more layers add up. `weights` is the relative error of an unpacked weight; `logits` that of the logits to those of the
dense model in float32; `a batch` and `a prefix` those of a model to itself, of which only the batch or the length
differs. The tolerance of the dtype, 0.08 in bfloat16 and 0.001 in float32, is added to the bounds of these three; a
bound of 0 is that tolerance, of prefixes at least 0.01.

Written by `python -m benchmarks.quantizers --markdown docs/quantizers.md`.
"""


def measured(cell: Cell, folder: Path, prompts: Any) -> dict[str, float]:
    """The errors of one plain load; empty where the check does not apply."""
    loaded = Loaded.load(BuiltinTarget(), folder, cell)
    known = reference(str(folder), prompts, NEW_TOKENS, cache_directory() / "references")
    exam = Examination(BuiltinTarget(), str(folder), cell, loaded, prompts, known)
    found: dict[str, float] = {}
    for name, (check, key) in SEEN.items():
        result = exam.check(check)
        if not result.passed and not result.inapplicable:
            print(result.message(cell.id))
        if key in result.evidence:
            found[name] = float(result.evidence[key])
    loaded.release()
    return found


def bounds(entry: Quantization) -> dict[str, float]:
    """What the checks allow, without what the dtype adds."""
    own = {"a batch": entry.batch_error, "a prefix": entry.batch_error}
    return {"weights": entry.packing_error, "logits": entry.logits_error, **own}


def rows(entry: Quantization, seen: dict[tuple[str, str], tuple[float, str]]) -> Iterator[str]:
    """A row of the table for each dtype."""
    for dtype in DTYPES:
        cells = []
        for name, bound in bounds(entry).items():
            error, family = seen.get((dtype, name), (0.0, ""))
            cells.append(f"{error:.2g} ({family}), bound {bound:g}" if error else f"0, bound {bound:g}")
        yield f"| `{entry.name}` | {dtype} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or write it."""
    import torch
    from transformers.utils import logging

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="quantizations, all that are installed by default")
    parser.add_argument("--markdown", type=Path, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    machine = Inventory(versions={"transformers": "5.23.0", **{entry.library: "99" for entry in QUANTIZERS}})
    lines = ["| quantization | dtype | weights | logits | a batch | a prefix |", "|---|---|---|---|---|---|"]
    for entry in QUANTIZERS:
        if options.names and entry.name not in options.names:
            continue
        worst: dict[tuple[str, str], tuple[float, str]] = {}
        for family in families():
            folder = checkpoint(family)
            prompts = encode(load_tokenizer(folder))
            for dtype in DTYPES:
                cell = Cell(family, "cpu", dtype, entry.name)
                if unsupported(cell, machine):
                    continue
                for name, error in measured(cell, folder, prompts).items():
                    worst[dtype, name] = max(worst.get((dtype, name), (0.0, "")), (error, family))
        if worst:
            lines += rows(entry, worst)
            print("\n".join(lines[-2:]), flush=True)
    if options.markdown:
        options.markdown.write_text(f"{HEAD}\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
