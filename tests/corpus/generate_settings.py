"""Settings of generation that are left on, left out, or understood otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import GenerationConfig

from corpus.case import Case
from corpus.generate_tensors import Generating
from corpus.generating import Prompts, Served, new_tokens
from pytest_llmdevice import Cell


class SamplingLeftOn(Generating):
    """Takes the checkpoint's chat defaults along: sampling at temperature 1.5."""

    defaults: Mapping[str, Any] = MappingProxyType({"do_sample": True, "temperature": 1.5, "top_k": 50})

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        for name, value in self.defaults.items():
            setattr(model.generation_config, name, value)
        return model

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens)
        return new_tokens(output, inputs["input_ids"].shape[1])


class SamplingOff(SamplingLeftOn):
    defaults: Mapping[str, Any] = MappingProxyType({"do_sample": False})


class PenaltyLeftOn(SamplingLeftOn):
    """Asks for greedy tokens and keeps the penalty for repetition that the chat defaults have."""

    defaults: Mapping[str, Any] = MappingProxyType({"repetition_penalty": 1.8})


class PenaltyOff(SamplingLeftOn):
    defaults: Mapping[str, Any] = MappingProxyType({"repetition_penalty": 1.0})


class LengthOfAll(Generating):
    """Hands the number of new tokens on as the length of everything, prompt included."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        width = inputs["input_ids"].shape[1]
        config = GenerationConfig(do_sample=False, pad_token_id=self.tokenizer.pad_token_id)
        output = model.generate(**inputs, generation_config=config, max_length=self.length(width, max_new_tokens))
        return new_tokens(output, width)

    def length(self, width: int, new: int) -> int:
        return max(new, width + 1)


class LengthOfTheNew(LengthOfAll):
    def length(self, width: int, new: int) -> int:
        return width + new


class EndIgnored(Served):
    """A loop that knows no end token."""

    stops = False

    @torch.inference_mode()
    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        end = model.generation_config.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        rows = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self.device)
            for _ in range(max_new_tokens):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
                if self.stops and int(ids[0, -1]) in ends:
                    break
            rows += new_tokens(ids, len(prompt))
        return rows


class EndKnown(EndIgnored):
    stops = True


class AutocastAround(Generating):
    """Generates under autocast, which was for a card and is written for the cpu too."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self.enabled(model)):
            return super().generate(model, prompts, max_new_tokens)

    def enabled(self, model: Any) -> bool:
        return True


class AutocastForHalves(AutocastAround):
    def enabled(self, model: Any) -> bool:
        return model.dtype == torch.bfloat16


class ForwardUnderAutocast(Generating):
    """Wraps the model's forward for mixed-precision training, and leaves it wrapped."""

    wrapped = True

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        if self.wrapped:
            model.forward = torch.autocast(cell.torch_device.type, dtype=torch.float16)(model.forward)
        return model


class ForwardAsItIs(ForwardUnderAutocast):
    wrapped = False


class TrainingWhileGenerating(Generating):
    """Puts the model back into training mode after each answer, and so before the next."""

    mode = True

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        rows = super().generate(model, prompts, max_new_tokens)
        model.train(self.mode)
        return rows


class EvaluatingAlways(TrainingWhileGenerating):
    mode = False


class TrainingForOneAnswer(Generating):
    """Switches the model to training mode for each answer and back afterwards, as a trainer does the other way."""

    mode = True

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        model.train(self.mode)
        rows = super().generate(model, prompts, max_new_tokens)
        model.eval()
        return rows


class EvaluatingForOneAnswer(TrainingForOneAnswer):
    mode = False


class CastForOneAnswer(Generating):
    """Generates in half precision to be quick, and makes the model float32 again afterwards."""

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        rows = super().generate(self.quick(model), prompts, max_new_tokens)
        model.float()
        return rows

    def quick(self, model: Any) -> Any:
        return model.bfloat16()


class AsItIsForOneAnswer(CastForOneAnswer):
    def quick(self, model: Any) -> Any:
        return model


class EndTokenOfAnotherModel(Generating):
    """Stops at a token number that it knows from another model, where it ends a turn. Here it is a letter."""

    def options(self, model: Any) -> dict[str, Any]:
        return {"eos_token_id": self.end(model)}

    def end(self, model: Any) -> int:
        return 106


class EndTokenOfThisModel(EndTokenOfAnotherModel):
    def end(self, model: Any) -> int:
        return model.generation_config.eos_token_id


class PromptReturnedToo(Served):
    """Returns what `generate` does, prompt and all."""

    cut = False

    def generate(self, model: Any, prompts: Prompts, max_new_tokens: int) -> Prompts:
        inputs = {name: tensor.to(self.device) for name, tensor in self.batch(prompts).items()}
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return new_tokens(output, inputs["input_ids"].shape[1] if self.cut else 0)


class PromptCut(PromptReturnedToo):
    cut = True


def _case(
    name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "", missed: str = ""
) -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "settings", source, story, buggy, fixed, cells, machine, missed)


CASES = (
    _case(
        "sampling-left-on",
        "huggingface/lighteval/issues/559",
        "sampling is on where greedy tokens are wanted",
        SamplingLeftOn,
        SamplingOff,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "repetition-penalty-left-on",
        "PrimeIntellect-ai/prime-rl/pull/886",
        "the chat defaults' repetition penalty changes greedy tokens",
        PenaltyLeftOn,
        PenaltyOff,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "length-of-all-for-the-new",
        "bigcode-project/bigcode-evaluation-harness/pull/257",
        "the number of new tokens is handed on as max_length, which counts the prompt",
        LengthOfAll,
        LengthOfTheNew,
        Cell("qwen2", "cpu", "float16"),
    ),
    _case(
        "end-token-ignored",
        "Lightning-AI/litgpt/pull/812",
        "a loop of one's own never looks for the end token",
        EndIgnored,
        EndKnown,
        Cell("llama", "cpu", "float32"),
        missed="a loop that makes as many tokens as it is asked for keeps the contract, and no model of the zoo ends",
    ),
    _case(
        "end-token-of-another-model",
        "vllm-project/vllm/issues/1136",
        "generation stops at the number that ends a turn in another vocabulary",
        EndTokenOfAnotherModel,
        EndTokenOfThisModel,
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "autocast-around-generate",
        "jwohlwend/boltz/issues/662",
        "a float32 model generates under an autocast to bfloat16",
        AutocastAround,
        AutocastForHalves,
        Cell("llama", "cpu", "float32"),
        Cell("qwen2", "cuda:0", "float32", simulated=True),
        machine="cuda",
    ),
    _case(
        "forward-under-autocast",
        "huggingface/accelerate/pull/860",
        "the model's forward is wrapped in an autocast to float16",
        ForwardUnderAutocast,
        ForwardAsItIs,
        Cell("phi3", "cuda:0", "bfloat16", simulated=True),
        machine="cuda",
    ),
    _case(
        "training-while-generating",
        "huggingface/trl/issues/155",
        "the model is in training mode while it generates, and dropout is active",
        TrainingWhileGenerating,
        EvaluatingAlways,
        Cell("gpt2", "cpu", "float32"),
    ),
    _case(
        "training-for-one-answer",
        "unslothai/unsloth/issues/2973",
        "the model is in training mode while it generates, and nothing shows: it has no dropout",
        TrainingForOneAnswer,
        EvaluatingForOneAnswer,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "cast-for-one-answer",
        "rasbt/reasoning-from-scratch/issues/118",
        "generating changes the model it is given: it is cast to a half and back, and its digits are gone",
        CastForOneAnswer,
        AsItIsForOneAnswer,
        Cell("qwen3", "cpu", "float32"),
    ),
    _case(
        "prompt-returned-too",
        "SearchSavior/OpenArc/pull/4",
        "the prompt is in front of the new tokens",
        PromptReturnedToo,
        PromptCut,
        Cell("mamba", "cpu", "bfloat16"),
    ),
)
