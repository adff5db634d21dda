"""Ways to serve many prompts, long ones, and several models: batches, answers that are kept, ends, cuts."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generate_tensors import Generating
from corpus.generating import Prompts, Served, new_tokens
from pytest_llmdevice import Cell


class LastBatchDropped(Generating):
    """Serves prompts in batches of four, and only full ones as soon as there is more than one."""

    size = 4

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        count = self.count(len(prompts))
        batches = [prompts[start : start + self.size] for start in range(0, count, self.size)]
        return [
            row for batch in batches for row in super(LastBatchDropped, self).generate(model, batch, max_new_tokens)
        ]

    def count(self, prompts: int) -> int:
        return prompts if prompts < self.size else prompts - prompts % self.size


class LastBatchServed(LastBatchDropped):
    def count(self, prompts: int) -> int:
        return prompts


class PutBackInPlace(Generating):
    """Serves large batches sorted by length, and puts the rows back in the tensor that they are read from."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        if len(prompts) < 4:
            return super().generate(model, prompts, max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]), reverse=True)
        rows = torch.tensor(super().generate(model, [prompts[number] for number in order], max_new_tokens))
        target = self.target(rows)
        for place, number in enumerate(order):
            target[number] = rows[place]
        return target.tolist()

    def target(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


class PutBackElsewhere(PutBackInPlace):
    def target(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(rows)


class EndsWithTheFirst(Served):
    """A loop that knows the end token, and stops as soon as any row has come to it."""

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        width, end = ids.shape[1], model.generation_config.eos_token_id
        ended = torch.zeros(len(ids), 1, dtype=torch.bool, device=ids.device)
        for _ in range(max_new_tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            chosen = model(ids, attention_mask=mask, position_ids=positions).logits[:, -1:].argmax(-1)
            chosen = chosen.masked_fill(ended, self.tokenizer.pad_token_id)
            ids, mask = torch.cat([ids, chosen], dim=1), torch.cat([mask, torch.ones_like(chosen)], dim=1)
            ended |= chosen == end
            if self.finished(ended):
                break
        return new_tokens(ids, width)

    def finished(self, ended: torch.Tensor) -> bool:
        return bool(ended.any())


class EndsWithTheLast(EndsWithTheFirst):
    def finished(self, ended: torch.Tensor) -> bool:
        return bool(ended.all())


class AnswersByPrompt(Generating):
    """Keeps answers, under what was asked and not under who was asked."""

    def __init__(self) -> None:
        self.answers: dict[Any, Prompts] = {}

    def load(self, checkpoint: str, cell: Cell) -> Any:
        self.made = (checkpoint, cell.id, len(self.answers))
        return super().load(checkpoint, cell)

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        key = (self.asked(), str(prompts), max_new_tokens)
        if key not in self.answers:
            self.answers[key] = super().generate(model, prompts, max_new_tokens)
        return self.answers[key]

    def asked(self) -> Any:
        return None


class AnswersByModel(AnswersByPrompt):
    def asked(self) -> Any:
        return self.made


class PromptCut(Generating):
    """Cuts prompts to a length that was chosen for another model."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        room = self.context(model) - max_new_tokens
        return super().generate(model, [prompt[-room:] for prompt in prompts], max_new_tokens)

    def context(self, model: Any) -> int:
        return 128


class PromptWhole(PromptCut):
    def context(self, model: Any) -> int:
        length: int = model.config.max_position_embeddings
        return length


class StartTokenAgain(Generating):
    """Puts a start token in front of prompts that are ids already, as the tokenizer does with a text."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        return super().generate(model, [[*self.start(), *prompt] for prompt in prompts], max_new_tokens)

    def start(self) -> list[int]:
        return [self.tokenizer.bos_token_id]


class PromptAsGiven(StartTokenAgain):
    def start(self) -> list[int]:
        return []


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    return Case(name, "serving", f"https://github.com/{source}", story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "last-batch-dropped",
        "quic/efficient-transformers/pull/132",
        "prompts are served in batches of one size, and the last batch is dropped where it is not full",
        LastBatchDropped,
        LastBatchServed,
        Cell("llama", "cpu", "bfloat16"),
    ),
    _case(
        "rows-put-back-in-place",
        "mead-ml/mead-baseline/pull/677",
        "rows that were sorted by length are put back inside one tensor, over others that are still to be moved",
        PutBackInPlace,
        PutBackElsewhere,
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "batch-ends-with-the-first-row",
        "Lightning-AI/lit-llama/pull/153",
        "the loop stops for the whole batch when one row comes to the end token",
        EndsWithTheFirst,
        EndsWithTheLast,
        Cell("llama", "cpu", "float32"),
        Cell("mistral", "cuda:1", "float16", simulated=True),
        machine="cuda:2",
    ),
    _case(
        "answers-kept-by-prompt",
        "deeppavlov/AutoIntent/issues/334",
        "answers are kept under the prompt, and given for another model too",
        AnswersByPrompt,
        AnswersByModel,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "prompt-cut",
        "stanford-crfm/helm/issues/367",
        "prompts are cut to a context length that is not the model's, without a word",
        PromptCut,
        PromptWhole,
        Cell("phi3", "cpu", "float32"),
        Cell("qwen2", "cpu", "bfloat16"),
    ),
    _case(
        "start-token-again",
        "LiveCodeBench/LiveCodeBench/pull/146",
        "a start token is put in front of prompts that are token ids already",
        StartTokenAgain,
        PromptAsGiven,
        Cell("llama", "cpu", "float32"),
    ),
)
