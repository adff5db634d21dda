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
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.inference.generation import is_encoder_decoder
from pytest_llmdevice.loading.target import BuiltinTarget

from . import record
from .build import CannotBuild
from .run import in_child, loaded

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


def prepare(model: str) -> None:
    """Import what loading `model` needs, in a process whose children then need not."""
    from importlib import import_module

    for name in ("accelerate.hooks", "transformers.integrations.bitsandbytes", "transformers.quantizers.auto"):
        import_module(name)
    for quantization in ("none", "nf4", "int8"):
        BuiltinTarget().load(str(zoo.checkpoint(model)), Cell(model, "cpu", "float32", quantization, "device-map"))


def seen(cell: Cell) -> dict[str, Any]:
    """Load a cell with transformers on the cards that are here, run it once, and say what came of it."""
    import torch

    row: dict[str, Any] = {"cell": cell.id}
    try:
        model = BuiltinTarget().load(str(zoo.checkpoint(cell.model)), cell)
    except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
        return {**row, "raises": first_line(error)}
    tensors = [*model.named_parameters(), *model.named_buffers()]
    places: dict[str, int] = {}
    for _, tensor in tensors:
        place = f"{tensor.device} {_dtype(tensor)}"
        places[place] = places.get(place, 0) + 1
    lines = sorted(f"{name} {tensor.device} {_dtype(tensor)} {tuple(tensor.shape)}" for name, tensor in tensors)
    row["places"] = dict(sorted(places.items()))
    row["each"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    row["map"] = {name: str(device) for name, device in getattr(model, "hf_device_map", {}).items()}
    row["allocated"] = [torch.cuda.memory_allocated(card) for card in range(torch.cuda.device_count())]
    row["logits"] = _logits(model)
    return row


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


def _logits(model: Any) -> str:
    import torch

    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([IDS], device="cuda:0" if device.type == "meta" else device)
    decoder = {"decoder_input_ids": ids[:, :1]} if is_encoder_decoder(model) else {}
    try:
        with torch.no_grad(), without_cudnn():
            logits = model(input_ids=ids, **decoder).logits
    except Exception as error:  # noqa: BLE001 - see above
        return first_line(error)
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


def record_rows(models: Sequence[str], out: Path) -> None:
    """Load each cell of `models` in a child of this process, which runs over the stand-in, and write the rows."""
    rows = []
    for model in models:
        # What cannot be loaded here raises in the child too, and is a row.
        with suppress(Exception):
            prepare(model)
        for cell in cells([model]):
            row, died = in_child(lambda cell=cell: seen(cell), LONGEST)  # type: ignore[misc]
            row = {"cell": cell.id, "died": died} if row is None else row
            if cell.quantization == "int8" and not str(row.get("logits")).startswith("cuda"):
                # Its kernels find out which columns have large values, and copy those.
                row["logits"] = None
            rows.append(row)
    out.write_text(written(record.header(), rows), encoding="utf-8")


def differing(rows: Mapping[str, Mapping[str, Any]], models: Iterable[str]) -> Iterator[str]:
    """What the simulation does otherwise with the cells of `models`, in words."""
    from pytest_llmdevice.simulation import simulate

    for cell in cells(models):
        expected = rows.get(cell.id)
        if expected is None:
            continue
        with simulate("cuda:2"):
            found = seen(cell)
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
        lines = list(differing(read(options.out)[1], options.models))
        sys.stdout.write("".join(f"{line}\n" for line in (*lines, f"{len(lines)} differ")))
        return bool(lines)
    if loaded():
        record_rows(options.models, options.out)
        return 0
    try:
        return record.start(__spec__.name, [*options.models, "--out", str(options.out)])
    except CannotBuild as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
