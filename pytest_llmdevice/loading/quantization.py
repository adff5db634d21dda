"""The `BitsAndBytesConfig` of a cell, and what its packed weights look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from pytest_llmdevice.matrix.cell import Cell

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

LAYER_CLASS: Final = {
    "int8": "Linear8bitLt",
    "nf4": "Linear4bit",
    "nf4-double": "Linear4bit",
    "fp4": "Linear4bit",
}
"""Name of the bitsandbytes module that replaces `nn.Linear`."""

STORAGE_DTYPE: Final = {"int8": "int8", "nf4": "uint8", "nf4-double": "uint8", "fp4": "uint8"}
"""dtype of the packed weight. 4-bit weights are two to a byte, so their shape is not the layer's.
Source: bitsandbytes.nn.Int8Params and Params4bit (`quant_storage` defaults to uint8)."""


def config(cell: Cell) -> BitsAndBytesConfig | None:
    """The quantization config for `from_pretrained`, or None for a dense cell. Imports transformers.

    The 4-bit compute dtype is the cell's dtype: left out, it stays float32 whatever the model's dtype is.
    """
    if cell.quantization == "none":
        return None
    import transformers

    # Untyped upstream.
    make: Any = transformers.BitsAndBytesConfig
    if cell.quantization == "int8":
        return cast("BitsAndBytesConfig", make(load_in_8bit=True))
    options = make(
        load_in_4bit=True,
        bnb_4bit_quant_type=cell.quantization.removesuffix("-double"),
        bnb_4bit_use_double_quant=cell.quantization.endswith("-double"),
        bnb_4bit_compute_dtype=cell.torch_dtype,
    )
    return cast("BitsAndBytesConfig", options)
