"""Right loaders of other people's making pass every check, each on two models, and each model with some of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pytest_llmdevice import Cell, examine, simulate, zoo
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def auto_class(checkpoint: str) -> Any:
    return AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(checkpoint).is_encoder_decoder else AutoModelForCausalLM


class Loader:
    """A target made of one function."""

    def __init__(self, load: Callable[[str, Cell], Any]) -> None:
        self.load = load


def moved(checkpoint: str, cell: Cell) -> Any:
    return auto_class(checkpoint).from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device)


def mapped(checkpoint: str, cell: Cell) -> Any:
    return auto_class(checkpoint).from_pretrained(checkpoint, dtype=cell.dtype, device_map=cell.device)


def mapped_whole(checkpoint: str, cell: Cell) -> Any:
    place = {"": cell.torch_device.index if cell.torch_device.type == "cuda" else "cpu"}
    return auto_class(checkpoint).from_pretrained(checkpoint, torch_dtype=cell.torch_dtype, device_map=place)


def automatic(checkpoint: str, cell: Cell) -> Any:
    return auto_class(checkpoint).from_pretrained(checkpoint, dtype=cell.torch_dtype, device_map=cell.strategy)


def under_a_default_device(checkpoint: str, cell: Cell) -> Any:
    with torch.device(cell.device):
        return auto_class(checkpoint).from_pretrained(checkpoint, dtype=cell.torch_dtype)


def of_a_pipeline(checkpoint: str, cell: Cell) -> Any:
    from transformers import pipeline

    return pipeline("text-generation", model=checkpoint, dtype=cell.torch_dtype, device=cell.device).model


def dispatched(checkpoint: str, cell: Cell) -> Any:
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch

    with init_empty_weights():
        model = auto_class(checkpoint).from_config(AutoConfig.from_pretrained(checkpoint))
    model.tie_weights()
    return load_checkpoint_and_dispatch(model, checkpoint, device_map={"": cell.device}, dtype=cell.torch_dtype).eval()


def adapted(checkpoint: str, cell: Cell) -> Any:
    from peft import LoraConfig, get_peft_model

    model = mapped(checkpoint, cell)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if is_projection(module)}
    # Mamba's out_proj is read past its forward, and PEFT refuses it.
    names -= {"lm_head", "out_proj"} if AutoConfig.from_pretrained(checkpoint).model_type == "mamba" else {"lm_head"}
    return get_peft_model(model, LoraConfig(r=4, target_modules=sorted(names))).eval()


def is_projection(module: Any) -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"} and module.weight.shape[0] >= 16


def offloaded(checkpoint: str, cell: Cell) -> Any:
    from accelerate import cpu_offload

    return cpu_offload(auto_class(checkpoint).from_pretrained(checkpoint, dtype=cell.torch_dtype), cell.torch_device)


CARD, OTHER = "cuda:1", "cuda:0"

LOADERS: dict[str, tuple[Callable[[str, Cell], Any], str, str, str, tuple[str, str]]] = {
    "moved": (moved, "cpu", "float16", "to", ("gpt2", "bloom")),
    "moved-to-a-card": (moved, CARD, "bfloat16", "to", ("t5", "qwen2")),
    "mapped": (mapped, CARD, "float16", "device-map", ("gemma3", "mamba")),
    "mapped-whole": (mapped_whole, CARD, "float32", "device-map", ("opt", "mixtral")),
    "auto": (automatic, OTHER, "bfloat16", "auto", ("t5", "phi3")),
    "balanced": (automatic, OTHER, "float16", "balanced", ("deepseek-v3", "gpt2")),
    "sequential": (automatic, OTHER, "float32", "sequential", ("qwen3-moe", "llama")),
    "default-device": (under_a_default_device, CARD, "bfloat16", "to", ("mistral", "mamba")),
    "pipeline": (of_a_pipeline, "cpu", "bfloat16", "to", ("qwen3", "deepseek-v3")),
    "pipeline-on-a-card": (of_a_pipeline, CARD, "float16", "device-map", ("opt", "gemma3")),
    "dispatched": (dispatched, "cpu", "bfloat16", "device-map", ("qwen2", "t5")),
    "dispatched-to-a-card": (dispatched, CARD, "float16", "device-map", ("mamba", "phi3")),
    "lora": (adapted, "cpu", "bfloat16", "device-map", ("mixtral", "gpt2")),
    "lora-on-a-card": (adapted, CARD, "float16", "device-map", ("bloom", "t5")),
    "cpu-offload": (offloaded, CARD, "bfloat16", "cpu-offload", ("qwen3", "deepseek-v3")),
}
"""Name -> the loader, its cell, and two models: a pipeline takes no t5, and a dispatch finds no expert (transformers 5
renames and stacks them)."""


@pytest.mark.parametrize(("name", "family"), [(name, family) for name in LOADERS for family in LOADERS[name][-1]])
def test_a_right_loader_passes_every_check(name: str, family: str) -> None:
    load, device, dtype, strategy, _ = LOADERS[name]
    if name.startswith("lora"):
        pytest.importorskip("peft")
    cell = Cell(family, device, dtype, "none", strategy, simulated=device != "cpu")
    checkpoint = zoo.checkpoint(family)
    with simulate("cuda:2") if cell.simulated else nullcontext():
        results = list(examine(Loader(load), checkpoint, cell, folder=cache_directory() / "references"))
    # accelerate's own offloading leaves no map, by which transformers could write the weights.
    lacking = {"save"} if name == "cpu-offload" else set()
    assert {result.check for result in results if result.outcome == "inapplicable"} <= lacking
    assert [result.message(cell.id) for result in results if result.outcome not in {"passed", "inapplicable"}] == []
    assert len(results) > 1


def test_no_model_is_left_out() -> None:
    assert {family for *_, families in LOADERS.values() for family in families} == set(vocabulary.models())
