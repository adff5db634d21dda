"""Inputs that are not beside the model."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generating import Prompts, Served, embedding_device, load_model, new_tokens
from pytest_llmdevice import Cell


class QuantizedLeftAlone(Served):
    """Moves inputs for plain models only: "quantized models place themselves"."""

    quantized_too = False

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.quantized = cell.quantization != "none"
        return super().load(checkpoint, cell)

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = self.batch(prompts)
        if self.device.type == "cuda" and (self.quantized_too or not self.quantized):
            inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])


class QuantizedToo(QuantizedLeftAlone):
    quantized_too = True


class MovedAndForgotten(Served):
    """`Tensor.to` gives a new tensor; only `Module.to` works in place."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = self.batch(prompts)
        input_ids, attention_mask = self.move(inputs["input_ids"], inputs["attention_mask"])
        output = model.generate(
            input_ids, attention_mask=attention_mask, max_new_tokens=max_new_tokens, do_sample=False
        )
        return new_tokens(output, input_ids.shape[1])

    def move(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for tensor in tensors:
            tensor.to(self.device)
        return tensors


class MovedAndKept(MovedAndForgotten):
    def move(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.to(self.device) for tensor in tensors)


class OnlyIdsMoved(Served):
    """The ids go to the card, the mask stays where the tokenizer made it."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        output = model.generate(
            input_ids=encoded["input_ids"].to(self.device),
            attention_mask=self.mask(encoded["attention_mask"]),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, encoded["input_ids"].shape[1])

    def mask(self, mask: torch.Tensor) -> torch.Tensor:
        return mask


class MaskMovedToo(OnlyIdsMoved):
    def mask(self, mask: torch.Tensor) -> torch.Tensor:
        return mask.to(self.device)


class FirstParametersDevice(Served):
    """Asks the first parameter where the model is. Offloaded, that one has no data anywhere."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        where = {"model.embed_tokens": "cpu", "model.layers.0": "cpu"}
        rest = dict.fromkeys(("model.rotary_emb", "model.layers.1", "model.norm", "lm_head"), cell.index)
        super().load(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        return load_model(checkpoint, cell, device_map=where | rest)

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.home(model)) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])

    def home(self, model: Any) -> torch.device:
        return next(model.parameters()).device


class EmbeddingsHook(FirstParametersDevice):
    def home(self, model: Any) -> torch.device:
        return torch.device("cuda", model.get_input_embeddings()._hf_hook.execution_device)


class DeviceOfTheConstructor(Served):
    """An evaluator that is told `device="cuda"` once, and a map that says otherwise where the model is."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return model

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        context = encoded["input_ids"].to(self.home(model))
        output = model.generate(
            input_ids=context,
            attention_mask=encoded["attention_mask"].to(self.home(model)),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, context.shape[1])

    def home(self, model: Any) -> torch.device:
        return self._device


class DeviceOfTheEmbedding(DeviceOfTheConstructor):
    def home(self, model: Any) -> torch.device:
        return embedding_device(model)


class ListsLeftBehind(Served):
    """Moves the tensors of a dictionary; those inside its lists are no tensors and stay."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        width = encoded["input_ids"].shape[1]
        blocks = list(encoded["input_ids"].split(width // 2, dim=1))
        inputs = {"blocks": blocks, "attention_mask": encoded["attention_mask"]}
        inputs = {name: self.place(value) for name, value in inputs.items()}
        return prefilled(model, inputs["blocks"], inputs["attention_mask"], max_new_tokens)

    def place(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, torch.Tensor) else value


class ListsToo(ListsLeftBehind):
    def place(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.place(item) for item in value]
        return super().place(value)


@torch.inference_mode()
def prefilled(model: Any, blocks: list[torch.Tensor], mask: torch.Tensor, steps: int) -> Prompts:
    """Read a prompt block by block, then go on greedily."""
    cache, seen, logits = None, 0, None
    for block in blocks:
        seen += block.shape[1]
        positions = (mask[:, :seen].cumsum(-1) - 1).clamp(min=0)[:, -block.shape[1] :]
        output = model(block, attention_mask=mask[:, :seen], position_ids=positions, past_key_values=cache)
        cache, logits = output.past_key_values, output.logits
    chosen = []
    for _ in range(steps):
        chosen.append(logits[:, -1].argmax(-1, keepdim=True))
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = mask.sum(-1, keepdim=True) - 1
        output = model(chosen[-1], attention_mask=mask, position_ids=positions, past_key_values=cache)
        cache, logits = output.past_key_values, output.logits
    return torch.cat(chosen, dim=1).tolist()


class CudaByName(Served):
    """`.cuda()` on the inputs, on a machine that has none."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        input_ids = self.place(encoded["input_ids"])
        output = model.generate(
            input_ids=input_ids,
            attention_mask=self.place(encoded["attention_mask"]),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, input_ids.shape[1])

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.cuda()


class DeviceByName(CudaByName):
    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device)


class TypeWithoutIndex(DeviceByName):
    """Keeps the type of the model's device and loses its number: "cuda" is the current card."""

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device.type)


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "inputs", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "inputs-left-beside-a-quantized-model",
        "1rgs/jsonformer/issues/9",
        "inputs are moved for plain models only; a quantized one sits on a card, its inputs on the cpu",
        QuantizedLeftAlone,
        QuantizedToo,
        Cell("qwen2", "cuda:1", "float16", "nf4", "device-map", simulated=True),
        Cell("qwen3", "cuda:0", "float16", "int8", "device-map", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "to-without-assignment",
        "huggingface/transformers/issues/9229",
        "input_ids.to(device) is called and its result thrown away",
        MovedAndForgotten,
        MovedAndKept,
        Cell("gpt2", "cuda:0", "float32", simulated=True),
        machine="cuda",
    ),
    _case(
        "only-the-ids-moved",
        "databrickslabs/dolly/pull/180",
        "the ids go to the card, the attention mask stays on the cpu",
        OnlyIdsMoved,
        MaskMovedToo,
        Cell("mistral", "cuda:1", "bfloat16", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "first-parameters-device",
        "huggingface/transformers/pull/16935",
        "inputs go to the device of the first parameter, which is offloaded and has none",
        FirstParametersDevice,
        EmbeddingsHook,
        Cell("llama", "cuda:0", "float16", strategy="cpu-offload", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "device-remembered-at-construction",
        "EleutherAI/lm-evaluation-harness/issues/1575",
        "inputs go to the device that the evaluator was made with, the embedding is on another card",
        DeviceOfTheConstructor,
        DeviceOfTheEmbedding,
        Cell("llama", "cuda:1", "bfloat16", strategy="split", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "tensors-in-lists-left-behind",
        "AutoGPTQ/AutoGPTQ/issues/370",
        "only values that are tensors are moved; the blocks of a prompt are in a list",
        ListsLeftBehind,
        ListsToo,
        Cell("llama", "cuda:0", "float16", simulated=True),
        machine="cuda",
    ),
    _case(
        "cuda-by-name",
        "lm-sys/FastChat/issues/144",
        "the inputs are moved with .cuda(), also when the model was asked for on the cpu",
        CudaByName,
        DeviceByName,
        Cell("bloom", "cpu", "float32"),
    ),
    _case(
        "device-type-without-index",
        "thunlp/OpenPrompt/issues/160",
        "the inputs go to 'cuda', the current card, and the model is on cuda:1",
        TypeWithoutIndex,
        DeviceByName,
        Cell("phi3", "cuda:1", "float16", simulated=True),
        machine="cuda:2",
    ),
)
