"""Loaders that quantize something else than was asked for, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from pytest_llmdevice import Cell


def bits(cell: Cell, **options: Any) -> BitsAndBytesConfig | None:
    """What each quantization is in the configuration of bitsandbytes."""
    if cell.quantization == "none":
        return None
    if cell.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **options)
    four = {
        "bnb_4bit_quant_type": cell.quantization.removesuffix("-double"),
        "bnb_4bit_use_double_quant": cell.quantization.endswith("-double"),
        "bnb_4bit_compute_dtype": cell.torch_dtype,
    }
    return BitsAndBytesConfig(load_in_4bit=True, **{**four, **options})


def read(checkpoint: str, cell: Cell, config: BitsAndBytesConfig | None, **options: Any) -> Any:
    options = {"dtype": cell.torch_dtype, "device_map": {"": cell.device}, **options}
    return AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=config, **options).eval()


@dataclass
class OnCardsOnly:
    """Believes that bitsandbytes needs a card."""

    believes: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = bits(cell)
        if self.believes and cell.torch_device.type != "cuda":
            config = None
        return read(checkpoint, cell, config)


@dataclass
class Flags:
    """A command line with `--load-in-8bit` and `--load-in-4bit`, and a default among them."""

    four: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        eight = cell.quantization == "int8" or not self.four
        return read(checkpoint, cell, BitsAndBytesConfig(load_in_8bit=True) if eight else bits(cell))


@dataclass
class FourBits:
    """Says `load_in_4bit=True` and leaves some of the rest to the defaults."""

    left_out: tuple[str, ...] = ()

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config = bits(cell)
        given = {key: value for key, value in config.to_dict().items() if key.startswith("bnb_4bit")}
        given = {key: value for key, value in given.items() if key not in self.left_out}
        return read(checkpoint, cell, BitsAndBytesConfig(load_in_4bit=True, **given))


@dataclass
class Skips:
    """Keeps some modules dense, by a list of its own."""

    skipped: list[str] | None

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return read(checkpoint, cell, bits(cell, llm_int8_skip_modules=self.skipped))


@dataclass
class KeepsRouters:
    """Keeps the routers of mixtures of experts dense, in whichever model: every module that is called gate."""

    substring: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        from accelerate import init_empty_weights

        with init_empty_weights():
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))
        names = [name for name, _ in empty.named_modules() if self.is_router(name)]
        return read(checkpoint, cell, bits(cell, llm_int8_skip_modules=[*names, "lm_head"]))

    def is_router(self, name: str) -> bool:
        return "gate" in name if self.substring else "gate" in name.split(".")


@dataclass
class Replaces:
    """Replaces linear layers itself, each of them or all but the head."""

    excluded: tuple[str, ...]

    def load(self, checkpoint: str, cell: Cell) -> Any:
        import bitsandbytes

        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear and name not in self.excluded:
                made = bitsandbytes.nn.Linear4bit(
                    module.in_features,
                    module.out_features,
                    module.bias is not None,
                    compute_dtype=cell.torch_dtype,
                    compress_statistics=cell.quantization.endswith("-double"),
                    quant_type=cell.quantization.removesuffix("-double"),
                )
                weight = self.weight(module)
                made.weight = bitsandbytes.nn.Params4bit(
                    weight, requires_grad=False, quant_type=made.weight.quant_type,
                    compress_statistics=made.weight.compress_statistics, module=made,
                )  # fmt: skip
                made.bias = module.bias
                model.set_submodule(name, made)
        return model.to(cell.torch_device).eval()

    def weight(self, module: nn.Linear) -> torch.Tensor:
        return module.weight.data


class ReplacesBeforeReading(Replaces):
    """Quantizes what is in the layers before the checkpoint is read into them."""

    def weight(self, module: nn.Linear) -> torch.Tensor:
        made = nn.Linear(module.in_features, module.out_features, bias=False)
        return made.weight.data.to(module.weight.dtype)


@dataclass
class Eight:
    """Replaces linear layers by 8-bit ones, which keep their weights in half precision unless told otherwise."""

    told: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        import bitsandbytes

        if self.told:
            return read(checkpoint, cell, bits(cell))
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear and name != "lm_head":
                made = bitsandbytes.nn.Linear8bitLt(module.in_features, module.out_features, module.bias is not None)
                made.load_state_dict(module.state_dict())
                model.set_submodule(name, made.to(module.weight.dtype))
        return model.to(cell.torch_device).eval()


@dataclass
class CastsAfterwards:
    """Casts the model after it was quantized. `.to(dtype)` and `.half()` are refused, `.bfloat16()` is not."""

    casts: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, bits(cell))
        if self.casts:
            model = model.bfloat16()
        return model


@dataclass
class DtypeOfTheRest:
    """Hands the dtype to the configuration of bitsandbytes, and to nothing else."""

    told: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return read(checkpoint, cell, bits(cell), dtype=cell.torch_dtype if self.told else torch.float16)


@dataclass
class StateBehind:
    """Quantizes on the CPU and moves the packed weights by hand. What is needed to read them stays there."""

    state_too: bool
    moved: list[str] = field(default_factory=list)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, bits(cell), device_map={"": "cpu"})
        states = {name: getattr(parameter, "quant_state", None) for name, parameter in model.named_parameters()}
        model = model.to(cell.torch_device)
        for name, parameter in model.named_parameters():
            state = states[name]
            if state is not None and not self.state_too:
                state.to("cpu")
                parameter.quant_state = state
                model.get_submodule(name.rpartition(".")[0]).quant_state = state
                self.moved.append(name)
        return model


@dataclass
class Prepared:
    """Runs PEFT's preparation for training on a model that is only asked for answers."""

    prepares: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, bits(cell))
        if self.prepares:
            from peft import prepare_model_for_kbit_training

            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return model


@dataclass
class Dequantizes:
    """Brings the weights back to half precision, for speed, and forgets that less memory was what was asked for."""

    back: bool

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = read(checkpoint, cell, bits(cell))
        if self.back:
            model = model.dequantize()
            for parameter in model.parameters():
                parameter.data = parameter.data.to(cell.torch_dtype)
        return model
