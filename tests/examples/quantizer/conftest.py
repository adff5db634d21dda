"""Registers the quantization of `bytes_layer.py`."""

from __future__ import annotations

from bytes_layer import try_a_layer, unpacked

from pytest_llmdevice import Quantization, Registry


def no_configuration(_cell):
    """Transformers knows nothing of it: the target packs the layers itself."""


def pytest_llm_register(registry: Registry) -> None:
    """Add the quantization; see `own.toml` for a matrix that uses it."""
    registry.add(
        Quantization(
            name="bytes",
            description="a byte for each number, a scale for each row",
            library="",
            install="",
            config=no_configuration,
            settings={},
            layer_class="ByteLinear",
            parameter_class="",
            storage_dtype="int8",
            smoke_test=try_a_layer,
            packing_error=0.02,
            logits_error=0.1,
            dequantize=unpacked,
            unsaved="no file format holds the bytes",
        )
    )
