"""Tensors that are made while the model runs: tables of angles, positions, biases."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from corpus.case import Case
from corpus.generating import Prompts, Served, load_model, new_tokens
from pytest_llmdevice import Cell


class Generating(Served):
    """Greedy generation of a padded batch; `options` are what a subclass adds."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        options = {"do_sample": False, **self.options(model)}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        return new_tokens(output, inputs["input_ids"].shape[1])

    def options(self, model: Any) -> dict[str, Any]:
        return {}


class TableKeyedOnLength(Generating):
    """Keeps the table of angles until a longer one is needed. It is filled by a warm-up before the model is moved."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        super().load(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        self.device = cell.torch_device
        model = load_model(checkpoint, Cell(cell.model, "cpu", cell.dtype))
        self.cache_tables(model.model.rotary_emb)
        with torch.inference_mode():
            model(torch.zeros(1, 64, dtype=torch.long))
        return model.to(self.device)

    def cache_tables(self, rotary: Any) -> None:
        plain, tables = rotary.forward, {}

        def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            length = int(position_ids.max()) + 1
            key = self.key(x)
            if key not in tables or len(tables[key][0]) < length:
                cos, sin = plain(x, torch.arange(max(length, 64), device=x.device)[None])
                tables[key] = cos[0], sin[0]
            cos, sin = tables[key]
            return cos[position_ids], sin[position_ids]

        rotary.forward = forward

    def key(self, x: torch.Tensor) -> Any:
        return "table"


class TableKeyedOnDevice(TableKeyedOnLength):
    def key(self, x: torch.Tensor) -> Any:
        return x.device, x.dtype


class AnglesInHalf(Generating):
    """Computes the angles in the model's dtype: position 257 is the same as 256."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        rotary = model.model.rotary_emb

        def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            dtype = self.dtype(x)
            angles = position_ids[..., None].to(dtype) * rotary.inv_freq.to(dtype)
            angles = torch.cat([angles, angles], dim=-1)
            return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

        rotary.forward = forward
        return model

    def dtype(self, x: torch.Tensor) -> torch.dtype:
        return x.dtype


class AnglesInFloat32(AnglesInHalf):
    def dtype(self, x: torch.Tensor) -> torch.dtype:
        return torch.float32


class CountedInHalf(Generating):
    """Counts positions with the mask in the model's dtype."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        inner = model.forward

        def forward(input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **rest: Any) -> Any:
            if attention_mask is not None and attention_mask.ndim == 2:
                counted = attention_mask.to(self.dtype(model)).cumsum(-1) - 1
                position_ids = counted.clamp(min=0).long()[:, -input_ids.shape[1] :]
            return inner(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **rest)

        model.forward = forward
        return model

    def dtype(self, model: Any) -> torch.dtype:
        return model.dtype


class CountedInIntegers(CountedInHalf):
    def dtype(self, model: Any) -> torch.dtype:
        return torch.long


class Forbidden(LogitsProcessor):
    """Forbids some tokens, with a bias that was made for `device`."""

    def __init__(self, tokens: list[int], size: int, device: torch.device | str, *, follows: bool) -> None:
        self.bias = torch.zeros(size, device=device)
        self.bias[tokens] = -torch.inf
        self.follows = follows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.follows:
            self.bias = self.bias.to(scores.device)
        return scores + self.bias


class BiasOnTheCpu(Generating):
    follows = False

    def options(self, model: Any) -> dict[str, Any]:
        special = [model.config.bos_token_id, model.config.pad_token_id]
        processor = Forbidden(special, model.config.vocab_size, "cpu", follows=self.follows)
        return {"logits_processor": LogitsProcessorList([processor])}


class BiasFollowsTheScores(BiasOnTheCpu):
    follows = True


class TemperatureInFloat64(Served):
    """Scales logits by a number that came from NumPy, which is float64."""

    dtype = torch.float64

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        scale = torch.tensor(1 / 0.7, dtype=self.dtype).reshape(1, 1)
        rows = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self.device)
            for _ in range(max_new_tokens):
                logits = model(ids).logits[:, -1] * scale.to(self.device)
                ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
            rows += new_tokens(ids, len(prompt))
        return rows


class TemperatureInFloat32(TemperatureInFloat64):
    dtype = torch.float32


class DefaultDeviceLeftSet(Generating):
    """Sets the process' default device to make its tensors there, and leaves it set."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        self.where = cell.torch_device
        return model

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        torch.set_default_device(self.where)
        try:
            return super().generate(model, prompts, max_new_tokens)
        finally:
            self.restore()

    def restore(self) -> None:
        pass


class DefaultDevicePutBack(DefaultDeviceLeftSet):
    def restore(self) -> None:
        torch.set_default_device(None)


class SeedOnTheCpu(Served):
    """Draws the next token, from the best one only, with a generator that was made without a device."""

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        generator = torch.Generator(self.generator_device()).manual_seed(0)
        rows = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self.device)
            for _ in range(max_new_tokens):
                best, tokens = model(ids).logits[:, -1].float().topk(1)
                drawn = torch.multinomial(best.softmax(-1), 1, generator=generator)
                ids = torch.cat([ids, tokens.gather(1, drawn)], dim=1)
            rows += new_tokens(ids, len(prompt))
        return rows

    def generator_device(self) -> str | torch.device:
        return "cpu"


class SeedOnTheModelsDevice(SeedOnTheCpu):
    def generator_device(self) -> str | torch.device:
        return self.device


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "made while running", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "rotary-table-keyed-on-length",
        "lucidrains/rotary-embedding-torch/pull/48",
        "the table of angles is filled on the cpu, and kept when the model moves",
        TableKeyedOnLength,
        TableKeyedOnDevice,
        Cell("llama", "cuda:1", "float16", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "angles-in-half",
        "huggingface/transformers/issues/29496",
        "rotary angles are computed in bfloat16, which has few digits for far positions",
        AnglesInHalf,
        AnglesInFloat32,
        Cell("llama", "cpu", "bfloat16"),
        Cell("mistral", "cpu", "float16"),
    ),
    _case(
        "positions-counted-in-half",
        "oarriaga/paz/pull/415",
        "positions are a cumulative sum in bfloat16, which has no odd numbers above 256",
        CountedInHalf,
        CountedInIntegers,
        Cell("qwen2", "cpu", "bfloat16"),
    ),
    _case(
        "logits-bias-on-the-cpu",
        "huggingface/transformers/pull/38558",
        "a logits processor adds a bias that was made on the cpu",
        BiasOnTheCpu,
        BiasFollowsTheScores,
        Cell("bloom", "cuda:1", "bfloat16", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "float64-on-mps",
        "huggingface/transformers/issues/31060",
        "a number from NumPy is float64, which MPS has not",
        TemperatureInFloat64,
        TemperatureInFloat32,
        Cell("gpt2", "mps", "float32", simulated=True),
        machine="mps",
    ),
    _case(
        "default-device-left-set",
        "pytorch/pytorch/pull/174317",
        "generate sets torch's default device and leaves it set",
        DefaultDeviceLeftSet,
        DefaultDevicePutBack,
        Cell("qwen3", "cuda:0", "float32", simulated=True),
        machine="cuda",
    ),
    _case(
        "seed-on-the-cpu",
        "pytorch/pytorch/issues/62152",
        "tokens are drawn on the card with a generator of the cpu",
        SeedOnTheCpu,
        SeedOnTheModelsDevice,
        Cell("opt", "xpu:0", "bfloat16", simulated=True),
        machine="xpu",
    ),
)
