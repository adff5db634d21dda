"""What the libraries make of a card: the zoo's models, loaded with every strategy and quantization over the stand-in.

The rows say where each tensor is and in which dtype, the map of devices, the bytes that are allocated on each card, and
device, dtype and shape of the logits. From the repository's root, in an environment with the CUDA build:

    python -m tests.simulation.ground_truth.executed.libraries [model ...]

and what the simulation does otherwise, with any build:

    python -m tests.simulation.ground_truth.executed.libraries --compare [model ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.inference.generation import is_encoder_decoder
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.simulation.simulate import simulate

from . import record
from .run import PLACES, in_child, reads

LIBRARIES: Final = Path(__file__).parent / "libraries.json"

MODES: Final = (
    ("cuda:0", "none", "to"),
    ("cuda:1", "none", "to"),
    ("cuda:1", "none", "device-map"),
    ("cuda:0", "none", "auto"),
    ("cuda:0", "none", "split"),
    ("cuda:0", "none", "cpu-offload"),
    ("cuda:0", "nf4", "device-map"),
    ("cuda:1", "int8", "device-map"),
    ("cuda:0", "nf4", "auto"),
)
"""Device, quantization and strategy of the cells of each model."""

IDS: Final = (3, 5, 7, 11, 13)


def cells(models: Iterable[str], dtype: str = "float16") -> Iterator[Cell]:
    """The cells of `models`."""
    for model in models:
        for device, quantization, strategy in MODES:
            yield Cell(model, device, dtype, quantization, strategy)


def prepare(model: str, quantizations: Iterable[str] = ("none", "nf4", "int8")) -> None:
    """Import what loading `model` needs, in a process whose children then need not."""
    from importlib import import_module

    for name in ("accelerate.hooks", "transformers.integrations.bitsandbytes", "transformers.quantizers.auto"):
        import_module(name)
    for quantization in quantizations:
        BuiltinTarget().load(str(zoo.checkpoint(model)), Cell(model, "cpu", "float32", quantization, "device-map"))


def seen(cell: Cell, *, run: bool = True) -> dict[str, Any]:
    """Load a cell with transformers on the cards that are here, run it once, and say what came of it."""
    import torch

    row: dict[str, Any] = {"cell": cell.id}
    try:
        model = BuiltinTarget().load(str(zoo.checkpoint(cell.model)), cell)
    except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
        return {**row, "raises": first_line(error)}
    tensors = [*_parts(model.named_parameters()), *_parts(model.named_buffers())]
    places: dict[str, int] = {}
    for _, tensor in tensors:
        place = f"{tensor.device} {_dtype(tensor)}"
        places[place] = places.get(place, 0) + 1
    lines = sorted(f"{name} {tensor.device} {_dtype(tensor)} {tuple(tensor.shape)}" for name, tensor in tensors)
    row["places"] = dict(sorted(places.items()))
    row["each"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    row["map"] = {name: str(device) for name, device in getattr(model, "hf_device_map", {}).items()}
    row["allocated"] = [torch.cuda.memory_allocated(card) for card in range(torch.cuda.device_count())]
    row["logits"] = _logits(model) if run else None
    return row


def _parts(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Name and tensor, and behind a packed one those that it is made of."""
    for name, tensor in named:
        yield name, tensor
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _parts((f"{name}.{part}", getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Have what cuDNN would compute computed without it, on the same devices and in the same dtypes."""
    import torch

    attention = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(attention)


def _logits(model: Any) -> str | None:
    """Device, dtype and shape of the logits, or what was raised; None where that may depend on what was not there."""
    import torch

    before = reads()
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([IDS], device="cuda:0" if device.type == "meta" else device)
    decoder = {"decoder_input_ids": ids[:, :1]} if is_encoder_decoder(model) else {}
    try:
        with torch.no_grad(), without_cudnn():
            logits = model(input_ids=ids, **decoder).logits
    except Exception as error:  # noqa: BLE001 - see above
        said = first_line(error)
        by_places = PLACES.search(said) and not isinstance(error, torch.OutOfMemoryError)
        return said if reads() == before or by_places else None
    return f"{logits.device} {_dtype(logits)} {'x'.join(map(str, logits.shape))}"


def written(header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as text, one to a line."""
    return f'{{"header": {json.dumps(header)},\n"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n"


def read(path: Path = LIBRARIES) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The header, and the rows by the cell's id."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["header"], {row["cell"]: row for row in data["rows"]}


LONGEST: Final = 120
"""Seconds of a cell."""


def recorded(models: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The row of each cell of `models`, loaded in a child of this process, which runs over the stand-in."""
    quantizations = ["none", "nf4", "int8"]
    for model in models:
        # What cannot be loaded here raises in the child too, and is a row.
        with suppress(Exception):
            prepare(model, quantizations)
            # Another model has other modules, and is packed by the same.
            del quantizations[1:]
        ends = True
        for cell in cells([model]):
            row, ends = asked(cell, run=ends)
            yield row


def asked(cell: Cell, *, run: bool = True) -> tuple[dict[str, Any], bool]:
    """The row of a cell, and whether running it came to an end; if not, it is without logits."""
    row, died = in_child(lambda: seen(cell, run=run), LONGEST)
    if row is None and run:
        # A choice of experts, made of whatever is there, may have no end.
        return asked(cell, run=False)[0], False
    if row is None:
        return {"cell": cell.id, "died": died}, False
    if cell.quantization == "int8" and not str(row.get("logits")).startswith("cuda"):
        # Its kernels find out which columns have large values, and copy those.
        row["logits"] = None
    return row, run


def simulated(cell: Cell) -> dict[str, Any]:
    """The row of a cell on simulated cards.

    In a child as well: what the libraries keep in a process for the next model (hooks on an activation that all models
    share, a class's own device map), they keep on cards too.
    """
    _imported(cell.model, cell.quantization)
    row, died = in_child(lambda: _simulated(cell), LONGEST, LONGEST)
    return {"cell": cell.id, "died": died} if row is None else row


@cache
def _imported(model: str, quantization: str) -> None:
    with suppress(Exception):
        prepare(model, [quantization])


def _simulated(cell: Cell) -> dict[str, Any]:
    with simulate("cuda:2"):
        return seen(cell)


def differing(rows: Mapping[str, Mapping[str, Any]], wanted: Iterable[Cell]) -> Iterator[str]:
    """What the simulation does otherwise with the cells `wanted`, in words."""
    for cell in wanted:
        expected = rows.get(cell.id)
        if expected is None:
            continue
        found = simulated(cell)
        for field in sorted({*expected, *found}):
            if expected.get(field) != found.get(field) and not (field == "logits" and expected.get(field) is None):
                yield f"{cell.id}: {field}: CUDA {expected.get(field)}, simulated {found.get(field)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(zoo.families()))
    parser.add_argument("--out", type=Path, default=LIBRARIES, help="where the rows go")
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
