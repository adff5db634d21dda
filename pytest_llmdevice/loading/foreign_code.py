"""Keeps code out that a checkpoint brings along or names: the plugin's own loads run that of installed libraries only.

A `config.json` can name Python files (`auto_map`), which every load here declines by `trust_remote_code=False`: left
out, transformers asks on the terminal, and `yes | pytest -s` would run them. It can also name kernels of the hub, which
transformers fetches and runs without that switch where the package `kernels` is installed, and bring a way to generate.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final, NoReturn

from pytest_llmdevice.errors import UnsupportedByLibrary

_OWN_EXPERTS: Final = frozenset({None, "eager", "batched_mm", "grouped_mm"})
"""Implementations of experts that are transformers' and PyTorch's own code (`integrations/moe.py`, 5.23)."""

_OF_KERNELS: Final = frozenset({"mxfp4", "mxfp8", "fp8", "fbgemm_fp8", "eetq", "nvfp4", "metal", "gguf"})
"""Quantizations of checkpoints that transformers computes with kernels of the hub (`get_kernel` in the modules of
`integrations`, 5.23), some of them not before the first forward pass."""

_UNPACKED: Final = frozenset({"fp8", "mxfp4"})
"""Those of them that transformers unpacks on every device. It does so with metal too, but for mps only."""


def unpacks(config: Any) -> bool:
    """Whether the weights of a checkpoint with this configuration are unpacked while it is loaded."""
    quantized = getattr(config, "quantization_config", None)
    return bool(quantized.get("dequantize") if isinstance(quantized, dict) else getattr(quantized, "dequantize", False))


def unpack_without_kernels(config: Any) -> None:
    """Have the weights of a checkpoint unpacked while it is loaded, if else kernels of the hub compute with them.

    transformers does so by itself where there is no card. What has no option `dequantize` stays as it is.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    quantized = getattr(config, "quantization_config", None)
    if not isinstance(quantized, dict) or quantized.get("quant_method") not in _UNPACKED:
        return
    kind = AUTO_QUANTIZATION_CONFIG_MAPPING.get(quantized["quant_method"])
    if kind is not None and "dequantize" in inspect.signature(kind).parameters:
        config.quantization_config = {**quantized, "dequantize": True}


def refuse_foreign_code(config: Any, seen: frozenset[int] = frozenset()) -> None:
    """Do nothing if a model of `config` runs on the code of installed libraries.

    Raises:
        UnsupportedByLibrary: it or a part of it needs code of the hub.
    """
    experts = getattr(config, "_experts_implementation", None)
    if experts not in _OWN_EXPERTS:
        raise UnsupportedByLibrary(f"its config.json asks for the experts {experts!r}, which are {_CODE}")
    quantized = getattr(config, "quantization_config", None)
    kind = quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
    if str(getattr(kind, "value", kind)) in _OF_KERNELS and not unpacks(config):
        raise UnsupportedByLibrary(f"its config.json asks for the quantization {kind!r}, whose kernels are {_CODE}")
    for part in vars(config).values():
        # Encoders, decoders and the like have configurations of their own.
        if hasattr(part, "model_type") and id(part) not in seen:
            refuse_foreign_code(part, seen | {id(config)})


_CODE: Final = "code of the hub, and the plugin runs none: load it in a target of your own"


@contextmanager
def without_foreign_code() -> Iterator[None]:
    """While this holds, transformers gets no kernel of the hub and no way to generate from a checkpoint's folder.

    Flash attention that is not installed, and models such as RWKV, would fetch a kernel by themselves; transformers 4
    runs `custom_generate/generate.py` of a local folder whatever `trust_remote_code` says. What can do without goes on.
    """
    # In transformers 4 another module gets kernels, and fetches nothing unless it was asked to.
    kernels: Any = sys.modules.get("transformers.integrations.hub_kernels")
    # The class of the model, which the load imports, has it as its base.
    generation: Any = import_module("transformers.generation.utils")
    with ExitStack() as stack:
        for owner, name, instead in (
            (kernels, "get_kernel_hub", _refuse),
            (generation.GenerationMixin, "load_custom_generate", _refuse_generation),
        ):
            known = getattr(owner, name, None)
            if known is not None:
                stack.callback(setattr, owner, name, known)
                setattr(owner, name, instead)
        yield


def _refuse_generation(*_: object, **__: object) -> NoReturn:
    # What transformers takes for a folder that has none.
    raise OSError(f"the checkpoint's own way to generate is {_CODE}")


def _refuse(name: object, *_: object, **__: object) -> NoReturn:
    # What transformers takes for a kernel that cannot be had.
    raise FileNotFoundError(f"the kernel {name} is {_CODE}")
