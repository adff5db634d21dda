"""What the libraries make of a card: the zoo's models, loaded with every strategy and quantization over the stand-in.

The rows say where each tensor is and in which dtype, the map of devices, the bytes that are allocated on each card, and
device, dtype and shape of the logits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.inference.generation import is_encoder_decoder
from pytest_llmdevice.loading.target import BuiltinTarget

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


def seen(cell: Cell) -> dict[str, Any]:
    """Load a cell with transformers on the cards that are here, run it once, and say what came of it."""
    import torch

    row: dict[str, Any] = {"cell": cell.id}
    try:
        model = BuiltinTarget().load(str(zoo.checkpoint(cell.model)), cell)
    except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
        return {**row, "raises": type(error).__name__, "text": first_line(error)}
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


def _logits(model: Any) -> str:
    import torch

    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([IDS], device="cuda:0" if device.type == "meta" else device)
    decoder = {"decoder_input_ids": ids[:, :1]} if is_encoder_decoder(model) else {}
    try:
        with torch.no_grad():
            logits = model(input_ids=ids, **decoder).logits
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {first_line(error)}"
    return f"{logits.device} {_dtype(logits)} {'x'.join(map(str, logits.shape))}"


def written(header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as text, one to a line."""
    return f'{{"header": {json.dumps(header)},\n"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n"


def read(path: Path = LIBRARIES) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The header, and the rows by the cell's id."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["header"], {row["cell"]: row for row in data["rows"]}
