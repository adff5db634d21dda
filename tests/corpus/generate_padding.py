"""Batches whose padding is on the wrong side, is not masked, or is counted."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generating import Prompts, Served, new_tokens
from pytest_llmdevice import Cell


class PaddedOnTheRight(Served):
    """A bridge that pads with the side that the tokenizer was made for training with."""

    side = "right"

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        self.tokenizer.padding_side = self.side
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])


class PaddedOnTheLeft(PaddedOnTheRight):
    side = "left"


class MaskDropped(Served):
    """Takes only the ids out of the tokenizer's output. Padding is the end token, so nothing is inferred."""

    with_mask = False

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        self.tokenizer.pad_token = self.tokenizer.eos_token
        encoded = self.batch(prompts)
        mask = {"attention_mask": encoded["attention_mask"].to(model.device)} if self.with_mask else {}
        output = model.generate(
            encoded["input_ids"].to(model.device),
            **mask,
            pad_token_id=self.tokenizer.eos_token_id,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, encoded["input_ids"].shape[1])


class MaskPassed(MaskDropped):
    with_mask = True


class MaskOfOnes(Served):
    """Makes the mask itself, after the prompts were padded: every id is a valid one."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        ids = encoded["input_ids"].to(model.device)
        mask = self.mask(encoded).to(model.device)
        output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False)
        return self.cut(output, ids.shape[1])

    def mask(self, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.ones_like(encoded["input_ids"])

    def cut(self, output: torch.Tensor, width: int) -> Prompts:
        return new_tokens(output, width)


class MaskOfTheTokenizer(MaskOfOnes):
    def mask(self, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
        return encoded["attention_mask"]


class EncoderMaskOfOnes(Served):
    """The same for an encoder-decoder, whose prompts are padded on the right; its output begins with a start token."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="right")
        model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        return model.to(cell.torch_device).eval()

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=self.mask(encoded),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, 1)

    def mask(self, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.ones_like(encoded["input_ids"])


class EncoderMaskOfTheTokenizer(EncoderMaskOfOnes):
    def mask(self, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
        return encoded["attention_mask"]


class StartTokenKept(EncoderMaskOfTheTokenizer):
    """Returns the decoder's start token as if it were the first new one."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        encoded = self.batch(prompts)
        output = model.generate(**encoded, max_new_tokens=max_new_tokens, do_sample=False)
        return output.tolist()


class MaskedByValue(Served):
    """Pads with a space, which nobody prints, and takes every space for padding."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        space = ord(" ")
        width = max(map(len, prompts))
        ids = torch.tensor([[space] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=self.mask(ids, prompts, space),
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        return new_tokens(output, width)

    def mask(self, ids: torch.Tensor, prompts: Prompts, pad: int) -> torch.Tensor:
        return (ids != pad).long()


class MaskedByLength(MaskedByValue):
    def mask(self, ids: torch.Tensor, prompts: Prompts, pad: int) -> torch.Tensor:
        width = ids.shape[1]
        starts = torch.tensor([[width - len(prompt)] for prompt in prompts], device=ids.device)
        return (torch.arange(width, device=ids.device) >= starts).long()


class CutByItsOwnLength(Served):
    """Cuts each row where its prompt would end without padding."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(model.device) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False).tolist()
        return [row[self.end(prompt, inputs) :] for prompt, row in zip(prompts, output, strict=True)]

    def end(self, prompt: list[int], inputs: dict[str, torch.Tensor]) -> int:
        return len(prompt)


class CutByTheWidth(CutByItsOwnLength):
    def end(self, prompt: list[int], inputs: dict[str, torch.Tensor]) -> int:
        return inputs["input_ids"].shape[1]


class TruncatedOnTheRight(Served):
    """Leaves room for the new tokens in a context of 24 and drops the end of a prompt, which is what is continued."""

    context = 24

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        longest = self.context - max_new_tokens
        inputs = self.batch([prompt[:longest] for prompt in prompts])
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])


class TruncatedToTheModelsContext(TruncatedOnTheRight):
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        longest = model.config.max_position_embeddings - max_new_tokens
        inputs = self.batch([prompt[-longest:] for prompt in prompts])
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1])


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "padding", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "padded-on-the-right",
        "TransformerLensOrg/TransformerLens/issues/1760",
        "a decoder's prompts are padded on the right, and new tokens stand behind the padding",
        PaddedOnTheRight,
        PaddedOnTheLeft,
        Cell("opt", "cpu", "float32"),
        Cell("mixtral", "cpu", "bfloat16"),
    ),
    _case(
        "mask-dropped",
        "QwenLM/Qwen3/issues/814",
        "only the ids of the tokenizer's output are handed over, and padding is the end token",
        MaskDropped,
        MaskPassed,
        Cell("qwen3", "cpu", "float32"),
        Cell("qwen2", "cuda:0", "float16", simulated=True),
        machine="cuda",
    ),
    _case(
        "mask-of-ones",
        "huggingface/trl/issues/344",
        "the mask is made of ones after the batch was padded",
        MaskOfOnes,
        MaskOfTheTokenizer,
        Cell("gpt2", "cpu", "float16"),
        Cell("mamba", "cpu", "float32"),
    ),
    _case(
        "encoder-sees-padding",
        "huggingface/transformers/pull/7373",
        "an encoder gets no mask of its padding",
        EncoderMaskOfOnes,
        EncoderMaskOfTheTokenizer,
        Cell("t5", "cpu", "float32"),
    ),
    _case(
        "start-token-kept",
        "huggingface/transformers/issues/8161",
        "an encoder-decoder's start token is returned as the first new token",
        StartTokenKept,
        EncoderMaskOfTheTokenizer,
        Cell("t5", "cpu", "bfloat16"),
    ),
    _case(
        "masked-by-value",
        "microsoft/onnxruntime-genai/pull/1694",
        "whatever is the padding token is masked, in the middle of a prompt too",
        MaskedByValue,
        MaskedByLength,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "cut-by-its-own-length",
        "dottxt-ai/outlines/issues/148",
        "rows are cut at the length of their own prompt and not of the padded batch",
        CutByItsOwnLength,
        CutByTheWidth,
        Cell("qwen3-moe", "cpu", "float32"),
    ),
    _case(
        "truncated-on-the-right",
        "EleutherAI/lm-evaluation-harness/pull/2554",
        "a prompt that is too long loses its end, and to a context that is not the model's",
        TruncatedOnTheRight,
        TruncatedToTheModelsContext,
        Cell("phi3", "cpu", "float32"),
    ),
)
