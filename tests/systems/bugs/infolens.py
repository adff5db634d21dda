"""InfoLens: what its loader guards against, each guard taken out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lens import llm_target, model_loader

from pytest_llmdevice import Cell


class HalfOnTheCpu:
    """float16 for every device, as CUDA has it."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return model_loader.load_model(checkpoint, replace(llm_target.plan(cell), dtype=torch.float16))


class IgnoresBfloat16:
    """`CPU_FORCE_BFLOAT16` is read nowhere."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        environment = {**llm_target.environment(cell), "CPU_FORCE_BFLOAT16": "0"}
        return model_loader.load_model(checkpoint, model_loader.decide(cell.torch_device, environment))


class IgnoresInt8:
    """`FORCE_INT8` is read nowhere."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        environment = {**llm_target.environment(cell), "FORCE_INT8": "0"}
        return model_loader.load_model(checkpoint, model_loader.decide(cell.torch_device, environment))


class Int8Anywhere:
    """A machine with `FORCE_INT8=1`, and a loader that takes it at its word on MPS too."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return model_loader.load_model(checkpoint, replace(llm_target.plan(cell), int8=True))


class LeftOnTheCpu:
    """Without a map the model stays where it was loaded."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        plan = replace(llm_target.plan(cell), device=torch.device("cpu"), device_map=None)
        return model_loader.load_model(checkpoint, plan)


class SeesTheFuture:
    """A mask that hides the padding and not what follows: a prefix is told what comes after it."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = llm_target.load(checkpoint, cell)

        def open_mask(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            mask = kwargs.get("attention_mask")
            if mask is not None and mask.ndim == 4 and mask.shape[-2] > 1:
                seen = mask[:, :, -1:, :].expand_as(mask).clone()
                kwargs["attention_mask"] = seen.to(hidden.device)
            return args, kwargs

        for layer in model.model.layers:
            layer.self_attn.register_forward_pre_hook(open_mask, with_kwargs=True)
        return model
