"""Qwen1.5-0.5B: head and embedding are one tensor, and a map of eight cards puts it where no input goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chat.llm_target import ChatTarget
from chat.model import Chat
from checkpoints import checkpoint

from pytest_llmdevice import simulate
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget
from systems.bugs.qwen_tied import LastCard, OneCardTarget, PartedTarget, ToCudaTarget
from systems.examined import EVERY, NOISE, cell, failures, says

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

AUTO = "qwen2.cuda0.fp16.none.auto"
UNTIED = "qwen3.cuda0.fp16.none.auto"

CLAIMED = {
    "auto, eight cards": (AUTO, "cuda:8"),
    "auto, two cards, bfloat16": ("qwen2.cuda0.bf16.none.auto", "cuda:2"),
    "balanced": ("qwen2.cuda0.fp32.none.balanced", "cuda:8"),
    "sequential": ("qwen2.cuda0.fp16.none.sequential", "cuda:8"),
    "split": ("qwen2.cuda3.bf16.none.split", "cuda:8"),
    "one card": ("qwen2.cuda0.fp16.none.device-map", "cuda:8"),
    "offloaded": ("qwen2.cuda0.fp16.none.disk-offload", "cuda:8"),
    "CPU": ("qwen2.cpu.fp32.none.auto", ""),
    "CPU, offloaded": ("qwen2.cpu.bf16.none.disk-offload", ""),
}


class TestTheFix:
    @pytest.mark.parametrize("claimed", CLAIMED)
    def test_inputs_beside_the_embedding_pass(self, claimed: str) -> None:
        identity, machine = CLAIMED[claimed]
        assert failures(ChatTarget(), cell("qwen-tied", identity), machine) == {}

    def test_inputs_beside_the_embedding_pass_where_it_is_on_the_last_card(self) -> None:
        assert failures(LastCard(), cell("qwen-tied", AUTO), "cuda:8", until=EVERY) == {}

    def test_one_visible_card_passes(self) -> None:
        # `CUDA_VISIBLE_DEVICES=7`: the card that is left is called cuda:0.
        assert failures(ToCudaTarget(), cell("qwen-tied", AUTO), "cuda:1") == {}

    def test_a_map_of_one_card_passes(self) -> None:
        assert failures(OneCardTarget(), cell("qwen-tied", "qwen2.cuda0.fp16.none.device-map"), "cuda:8") == {}


class TestTheBug:
    def test_is_caught(self) -> None:
        found = failures(ToCudaTarget(), cell("qwen-tied", AUTO), "cuda:8")
        assert says(found, "input_ids.*cuda:7.*cuda:0", "hint: .*get_input_embeddings")

    def test_is_none_of_an_untied_model(self) -> None:
        assert failures(ToCudaTarget(), cell("qwen-tied", UNTIED), "cuda:8") == {}

    def test_raises_for_its_users_and_names_both_cards(self) -> None:
        path = checkpoint("qwen2")
        with simulate("cuda:8"):
            # One entry: no hooks that would move the inputs, as there were none that did at the time.
            chat = Chat(path, torch.float16, {"": "cuda:7"})
            ids = torch.tensor([[1, 2]], device="cuda:0")
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device") as caught:
                chat.model(ids)
        assert "cuda:0" in str(caught.value)
        assert "cuda:7" in str(caught.value)

    def test_a_head_that_parts_from_the_embedding_is_caught_by_name(self) -> None:
        found = failures(PartedTarget(), cell("qwen-tied", AUTO), "cuda:8", until="tied")
        assert "lm_head.weight" in found["tied"]
        assert says({"tied": found["tied"]}, "the same tensor as model.embed_tokens.weight")
        assert says({"placement": found["placement"]}, "lm_head.weight.*cuda:7")


class TestTheAdvice:
    """Look at the device of the model and of its inputs; log the placement at load and at inference."""

    @pytest.mark.parametrize(("identity", "machine"), [(AUTO, "cuda:8"), ("qwen2.cuda3.fp16.none.split", "cuda:8")])
    def test_the_placement_is_recorded_at_load(self, identity: str, machine: str) -> None:
        path, asked = checkpoint("qwen2"), cell("qwen-tied", identity)
        with simulate(machine):
            loaded = Loaded.load(BuiltinTarget(), Path(path), asked)
            places = {str(parameter.device) for parameter in loaded.model.parameters()}
        assert loaded.measures is not None
        assert len(places) > 1 or "auto" in identity
        assert all(f"{place}: " in loaded.measures.summary for place in places)
        assert {memory.place for memory in loaded.measures.cards if memory.after} == places


def test_the_suite_says_so(run_matrix: Callable[..., pytest.RunResult]) -> None:
    ids = (f"{AUTO}.sim", f"{UNTIED}.sim")
    result = run_matrix(
        "qwen-tied", "systems.bugs.qwen_tied:ToCudaTarget", "cuda:8", *ids, more=("-k", "loads or inputs or generation")
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*input_ids*cuda:7*cuda:0*", "*simulated: 1 failed, 1 partly run*"])
    result.stdout.fnmatch_lines([f"   cell     {ids[0]}"])
