"""A target that leaves its inputs behind is caught on simulated cards, also where transformers moves them silently."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version

SILENT = Version(version("transformers")) >= Version("5")

TARGET = """
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class Loader:
    def load(self, checkpoint, cell):
        quantized = cell.quantization != "none"
        config = BitsAndBytesConfig(load_in_8bit=True) if quantized else None
        return AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=cell.torch_dtype, device_map={"": cell.torch_device}, quantization_config=config
        )

    def generate(self, model, prompts, max_new_tokens):
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        inputs = {"input_ids": ids, "attention_mask": mask}
        device = model.get_input_embeddings().weight.device
        if CONDITION:
            inputs = {name: value.to(device) for name, value in inputs.items()}
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=max_new_tokens, min_new_tokens=max_new_tokens, pad_token_id=0
        )
        return [row.tolist() for row in output[:, longest:]]


loader = Loader()
"""

MATRIX = """
models = "qwen3"
devices = "cuda:7"
dtypes = "float16"
quantization = ["none", "int8"]
strategies = "device-map"
"""

FLAGS = ("--llm-matrix", "--llm-matrix-file=cards.toml", "--llm-simulate=cuda:8", "--llm-target=target:loader")


@pytest.fixture
def cards(project: pytest.Pytester, no_cards: object) -> pytest.Pytester:
    project.makefile(".toml", cards=MATRIX)
    project.syspathinsert()
    return project


def run(project: pytest.Pytester, condition: str) -> pytest.RunResult:
    project.makepyfile(target=TARGET.replace("CONDITION", condition))
    return project.runpytest_subprocess(*FLAGS, "-p", "no:cacheprovider", "-rf", "--pyargs", "pytest_llmdevice.suite")


def test_inputs_left_on_the_cpu_beside_a_quantized_model_are_named(cards: pytest.Pytester) -> None:
    result = run(cards, 'device.type == "cuda" and not getattr(model, "is_quantized", False)')

    outcomes = result.parseoutcomes()
    # transformers 4 raises, so that there are no tokens to look at either; 5 moves what is on the CPU.
    assert outcomes["failed"] == 1 if SILENT else outcomes["failed"] >= 1
    result.stdout.fnmatch_lines(
        [
            "inputs of qwen3.cuda7.fp16.int8.device-map.sim: *",
            "*input_ids*device cuda:7*device cpu*",
            "*attention_mask*device cuda:7*device cpu*",
            "*the target handed it over on another device than the embedding's*",
        ]
    )


def test_the_fix_passes(cards: pytest.Pytester) -> None:
    outcomes = run(cards, 'device.type == "cuda"').parseoutcomes()
    assert "failed" not in outcomes
    assert outcomes["passed"] > 20
