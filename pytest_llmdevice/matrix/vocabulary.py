"""The values an axis can take, and how each is written in a cell's id."""

from __future__ import annotations

from typing import Final

MODELS: Final = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma3",
    "phi3",
    "gpt2",
    "opt",
    "bloom",
    "mixtral",
    "qwen3-moe",
    "deepseek-v3",
    "mamba",
    "t5",
)
"""Families of the zoo. A model may also be `path:DIR` or `hub:org/name@revision`."""

MODEL_PREFIXES: Final = ("path:", "hub:")

KINDS: Final = ("cpu", "cuda", "rocm", "mps", "xpu")
"""Kinds of device. A ROCm card is a kind of its own although PyTorch calls it `cuda`."""

INDEXED_KINDS: Final = frozenset({"cuda", "rocm", "xpu"})
"""Kinds of which a machine can hold several; the others are written without an index."""

DTYPES: Final = ("float32", "bfloat16", "float16")

QUANTIZATIONS: Final = ("none", "int8", "nf4", "nf4-double", "fp4")

STRATEGIES: Final = (
    "to",
    "device-map",
    "auto",
    "balanced",
    "sequential",
    "split",
    "cpu-offload",
    "disk-offload",
    "shared-memory",
)

ATTENTIONS: Final = ("default", "eager", "sdpa", "flash_attention_2", "flex_attention")
"""`default` leaves the choice to the loader (see `pytest_llmdevice.loading.attention`)."""

SHORT_DTYPES: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""How a dtype is written in a cell's id."""

CHECKS: Final = (
    "loads",
    "meta",
    "placement",
    "dtypes",
    "values",
    "tied",
    "quantization",
    "mode",
    "forward",
    "inputs",
    "generation",
    "agreement",
    "padding",
    "prefix",
    "cache",
    "sampling",
    "save",
    "state",
    "reload",
    "cards",
)
"""The checks of the suite, in the order in which they run; `[[expect]]` refers to them by name."""
