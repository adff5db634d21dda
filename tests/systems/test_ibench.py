"""IBench: inputs follow a quantized model to its card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench.local_model import LocalModel, LocalModelTarget
from checkpoints import checkpoint
from torch import nn

from pytest_llmdevice import Cell
from systems.bugs.ibench import UnmovedByHandTarget, UnmovedTarget
from systems.examined import EVERY, NOISE, cell, failures, says

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

CLAIMED = {
    "fp16, one card": ("qwen2.cuda0.fp16.none.auto", "cuda:1"),
    "fp16, another card by hand": ("qwen3.cuda7.fp16.none.to", "cuda:8"),
    "fp16, several cards": ("qwen3.cuda0.fp16.none.auto", "cuda:8"),
    "8-bit, one card": ("qwen3.cuda0.fp16.int8.auto", "cuda:1"),
    "4-bit, one card": ("qwen2.cuda0.fp16.nf4.auto", "cuda:1"),
    "4-bit, several cards": ("qwen3.cuda0.fp16.nf4.auto", "cuda:8"),
    "fp16, CPU": ("qwen3.cpu.fp16.none.to", ""),
    "8-bit, CPU": ("qwen2.cpu.fp32.int8.auto", ""),
    "4-bit, CPU": ("qwen3.cpu.fp16.nf4.auto", ""),
}

QUANTIZED = ("qwen3.cuda7.fp16.int8.device-map", "qwen2.cuda7.fp16.nf4.device-map")


class TestTheFix:
    @pytest.mark.parametrize("claimed", CLAIMED)
    def test_passes(self, claimed: str) -> None:
        identity, machine = CLAIMED[claimed]
        assert failures(LocalModelTarget(), cell("ibench", identity), machine) == {}

    @pytest.mark.parametrize("identity", QUANTIZED)
    def test_passes_every_check(self, identity: str) -> None:
        assert failures(LocalModelTarget(), cell("ibench", identity), "cuda:8", until=EVERY) == {}

    @pytest.mark.parametrize("identity", ["qwen2.cuda7.fp16.none.device-map", "qwen2.cuda7.fp16.nf4.device-map"])
    def test_passes_for_a_model_with_an_adapter(self, identity: str) -> None:
        peft = pytest.importorskip("peft")

        class Adapted(LocalModelTarget):
            def load(self, folder: str, asked: Cell) -> Any:
                super().load(folder, asked)
                config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
                wrapper = self._wrapper
                wrapper.model = peft.get_peft_model(wrapper.model, config).eval()
                return wrapper.model

        assert failures(Adapted(), cell("ibench", identity), "cuda:8") == {}

    def test_only_tensors_move(self) -> None:
        inputs = {"input_ids": torch.ones(1, 2), "text": "hello", "use_cache": True}
        wrapper = LocalModel(checkpoint("qwen2"), "cpu", torch.float32)
        wrapper.quantized = True
        assert {**wrapper.place(inputs), "input_ids": None} == {**inputs, "input_ids": None}

    def test_a_model_without_parameters_is_left_alone(self) -> None:
        wrapper = LocalModel(checkpoint("qwen2"), "cuda:7", torch.float32, device_map={"": "cpu"})
        wrapper.quantized, wrapper.model = True, nn.Module()
        inputs = {"input_ids": torch.ones(1, 2)}
        assert wrapper.place(inputs) is inputs


class TestTheBug:
    @pytest.mark.parametrize("identity", QUANTIZED)
    def test_is_caught_though_transformers_moves_the_inputs_after_all(self, identity: str) -> None:
        found = failures(UnmovedTarget(), cell("ibench", identity), "cuda:8", until=EVERY)
        # transformers moves them: nothing but what was handed over is wrong.
        assert set(found) == {"inputs"}
        assert says(found, "input_ids.*cuda:7.*cpu", "attention_mask.*cuda:7.*cpu", "hint: .*get_input_embeddings")

    @pytest.mark.parametrize("identity", QUANTIZED)
    def test_is_caught_with_the_sentence_of_its_users_where_nothing_moves_them(self, identity: str) -> None:
        found = failures(UnmovedByHandTarget(), cell("ibench", identity), "cuda:8")
        assert says(
            found,
            "got index is on cpu, different from other tensors on cuda:7",
            "model.embed_tokens",
            "hint: .*inputs that were not moved to the embedding's device",
        )

    @pytest.mark.parametrize("identity", ["qwen3.cuda7.fp16.none.device-map", "qwen2.cpu.fp32.int8.auto"])
    def test_is_none_of_a_dense_model_or_the_cpu(self, identity: str) -> None:
        machine = "cuda:8" if "cuda" in identity else ""
        assert failures(UnmovedTarget(), cell("ibench", identity), machine) == {}


def test_the_suite_says_so(run_matrix: Callable[..., pytest.RunResult]) -> None:
    ids = ("qwen3.cuda7.fp16.none.device-map.sim", QUANTIZED[0] + ".sim")
    result = run_matrix(
        "ibench", "systems.bugs.ibench:UnmovedTarget", "cuda:8", *ids, more=("-k", "loads or inputs or generation")
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*input_ids*cuda:7*cpu*", "*simulated: 1 failed, 1 partly run*"])
    result.stdout.fnmatch_lines([f"   cell     {ids[1]}"])
