"""Registers the quantization of `bytes_layer.py`."""

from __future__ import annotations

from pytest_llmdevice import Quantization, Registry


def no_configuration(_cell):
    """Transformers knows nothing of it: the target packs the layers itself."""


def unpacked(module, _weight):
    """The values of a packed layer."""
    return module.unpacked()


def try_a_layer(device, dtype):
    """Pack one layer, and compare it with a dense one."""
    import torch
    from bytes_layer import ByteLinear

    torch.manual_seed(0)
    weight, inputs = (torch.randn(rows, 64).to(getattr(torch, dtype)) for rows in (64, 8))
    layer = ByteLinear(weight).to(device)
    return layer(inputs.to(device)), inputs.double() @ weight.double().T, 0.05


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
