"""What torchao and optimum-quanto make of a card: models packed by them, loaded over the stand-in, as in `libraries`.

Of a packed weight, each tensor that it is made of is a row's too. From the repository's root, in an environment with
the CUDA build and both packages:

    python -m tests.simulation.ground_truth.executed.quantizers [model ...]

and what the simulation does otherwise, with any build and both packages:

    python -m tests.simulation.ground_truth.executed.quantizers --compare [model ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice import Cell

from . import record
from .libraries import asked, differing, prepare, read, written

QUANTIZERS: Final = Path(__file__).parent / "quantizers.json"

MODELS: Final = ("llama", "qwen2", "gpt2", "mixtral")

QUANTIZATIONS: Final = (
    "torchao-int8",
    "torchao-int8-dynamic",
    "torchao-int4",
    "torchao-float8",
    "quanto-int8",
    "quanto-int4",
)

MODES: Final = (("cuda:1", "to"), ("cuda:1", "device-map"), ("cuda:0", "auto"), ("cuda:0", "split"))
"""Device and strategy of the cells of each model and quantization."""


def cells(models: Iterable[str] = MODELS) -> Iterator[Cell]:
    """The cells of `models`."""
    for model in models:
        for quantization in QUANTIZATIONS:
            for device, strategy in MODES:
                yield Cell(model, device, "bfloat16", quantization, strategy)


def recorded(models: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The row of each cell of `models`, loaded in a child of this process, which runs over the stand-in."""
    for model in models:
        with suppress(Exception):
            prepare(model, ("none", *QUANTIZATIONS))
        for cell in cells([model]):
            yield asked(cell)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--out", type=Path, default=QUANTIZERS, help="where the rows go")
    parser.add_argument("--compare", action="store_true", help="ask the simulation")
    options = parser.parse_args(arguments)
    if options.compare:
        lines = list(differing(read(options.out)[1], cells(options.models)))
        sys.stdout.write("".join(f"{line}\n" for line in (*lines, f"{len(lines)} differ")))
        return bool(lines)

    def write() -> None:
        options.out.write_text(written(record.header(), recorded(options.models)), encoding="utf-8")

    return record.over_the_standin(__spec__.name, [*options.models, "--out", str(options.out)], write)


if __name__ == "__main__":
    sys.exit(main())
