"""Hygon DCU: ROCm cards, which PyTorch shows as `cuda`, in half precision and 4 bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from tutorial import llm_target, model

from pytest_llmdevice import Cell, simulate
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.load import Loaded
from systems.bugs import dcu as bugs
from systems.examined import EVERY, NOISE, cell, failures, says

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

HALF, BFLOAT, FOUR_BIT = (
    "llama.rocm0.fp16.none.auto",
    "llama.rocm0.bf16.none.auto",
    "llama.rocm0.fp16.nf4-double.auto",
)

CLAIMED = {
    "fp16": (HALF, "rocm-dcu"),
    "fp16, several cards": ("qwen2.rocm0.fp16.none.auto", "rocm-dcu:8"),
    "bf16": (BFLOAT, "rocm-dcu"),
    "bf16, several cards": ("qwen3.rocm0.bf16.none.auto", "rocm-dcu:8"),
    "4 bit, several cards": ("qwen2.rocm0.fp16.nf4-double.auto", "rocm-dcu:8"),
}


@pytest.mark.parametrize("claimed", CLAIMED)
def test_the_recipes_pass(claimed: str) -> None:
    identity, machine = CLAIMED[claimed]
    assert failures(llm_target, cell("dcu", identity), machine) == {}


def test_the_4_bit_recipe_passes_every_check() -> None:
    assert failures(llm_target, cell("dcu", FOUR_BIT), "rocm-dcu:2", until=EVERY) == {}


def test_a_dcu_is_a_rocm_device_whose_type_is_cuda() -> None:
    with simulate("rocm-dcu:2"):
        assert model.require_card() == "K100_AI"
        assert torch.cuda.device_count() == 2
        assert torch.version.hip
        assert torch.ones(1, device="cuda").device.type == "cuda"
    assert cell("dcu", HALF).kind == "rocm"


class TestARecipeNotFollowed:
    @pytest.mark.parametrize(
        ("target", "patterns"),
        [(bugs.PadsOnTheRight, ["prompt 0", "hint: .*padding"]), (bugs.ForgetsTheMask, ["prompt 0", "hint: .*mask"])],
    )
    def test_in_batches_is_caught(self, target: Any, patterns: list[str]) -> None:
        assert says(failures(target(), cell("dcu", HALF), "rocm-dcu:2"), *patterns)

    @pytest.mark.parametrize(
        ("target", "identity", "patterns"),
        [
            (bugs.ComputesInFloat32, FOUR_BIT, ["q_proj.*compute dtype float16.*float32", "^hint: "]),
            (bugs.QuantizesOnce, FOUR_BIT, ["q_proj.*double quantization"]),
            (bugs.HalfForAll, BFLOAT, ["embed_tokens.*bfloat16.*float16", "^hint: "]),
            (bugs.OnlyCuda, HALF, ["embed_tokens.*cuda:0.*cpu", "^hint: "]),
        ],
    )
    def test_is_caught(self, target: Any, identity: str, patterns: list[str]) -> None:
        assert says(failures(target(), cell("dcu", identity), "rocm-dcu:2", until="quantization"), *patterns)


class TestTheFailureList:
    def test_a_card_that_is_too_small_has_the_model_put_elsewhere(self) -> None:
        # `device_map="auto"` raises nothing: accelerate leaves on the CPU what the card has no room for.
        found = failures(llm_target, cell("dcu", HALF), "rocm-dcu,memory=64KiB", until="placement")
        assert says({"placement": found["placement"]}, "embed_tokens.*cuda:0.*cpu")

    def test_out_of_memory_while_loading(self) -> None:
        class Whole:
            def load(self, folder: str, asked: Cell) -> Any:
                return bugs.AutoModelForCausalLM.from_pretrained(folder, dtype=asked.torch_dtype).to("cuda")

        found = failures(Whole(), cell("dcu", HALF), "rocm-dcu,memory=64KiB")
        assert list(found) == ["loads"]
        assert says(found, "OutOfMemoryError: .*out of memory")

    def test_no_such_device(self) -> None:
        assert says(failures(llm_target, cell("dcu", HALF)), "DeviceUnavailableError: no card is visible")

    def test_a_card_that_is_no_dcu(self) -> None:
        assert says(failures(llm_target, cell("dcu", HALF), "cuda"), "this PyTorch is not built for ROCm")

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda folder: (folder / "model.safetensors").write_bytes(b"cut off"), "SafetensorError"),
            (lambda folder: (folder / "model.safetensors").unlink(), "OSError|FileNotFoundError"),
            (lambda folder: (folder / "config.json").write_text("{"), "OSError|JSONDecodeError|ValueError"),
        ],
        ids=["broken", "missing", "configuration"],
    )
    def test_broken_files(self, damage: Callable[[Path], object], said: str, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(checkpoint("llama"), folder)
        damage(folder)
        found = failures(llm_target, cell("dcu", HALF), "rocm-dcu", folder)
        assert list(found) == ["loads"]
        assert says(found, said)


class TestGenerating:
    """What the tutorial's users do with a model; the project's own tests do it on every cell."""

    @pytest.fixture(scope="class", params=[HALF, FOUR_BIT])
    def loaded(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        path = checkpoint("llama")
        with simulate("rocm-dcu:2"):
            yield llm_target.load(path, cell("dcu", request.param))

    @pytest.fixture
    def prompts(self) -> list[list[int]]:
        return encode(load_tokenizer(checkpoint("llama")))

    def test_sampling_draws_the_same_from_the_same_seed(self, loaded: Any, prompts: list[list[int]]) -> None:
        inputs, drawn = model.batch(loaded, prompts, pad=0), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append(model.generate(loaded, inputs, 8, temperature=1.5, top_k=50, top_p=0.95))
        assert drawn[0] == drawn[1] != drawn[2]

    def test_a_prompt_is_cut_where_it_begins(self, loaded: Any, prompts: list[list[int]]) -> None:
        longest = max(prompts, key=len)
        cut = model.batch(loaded, [longest, longest[-3:]], pad=0, longest=3)
        answers = model.generate(loaded, cut, 4)
        assert cut["input_ids"].shape == (2, 3)
        assert answers[0] == answers[1]

    def test_turns_that_carry_their_cache_say_what_one_long_prompt_says(
        self, loaded: Any, prompts: list[list[int]]
    ) -> None:
        conversation, history = model.Conversation(loaded), []
        for prompt in prompts[:2]:
            history += prompt
            answer = conversation.say(prompt, 4)
            assert answer == model.generate(loaded, model.batch(loaded, [history], pad=0), 4)[0]
            history += answer

    def test_monitors_see_time_and_memory(self, loaded: Any, prompts: list[list[int]]) -> None:
        with model.monitored() as monitor:
            model.generate(loaded, model.batch(loaded, prompts, pad=0), 4)
        assert monitor.seconds > 0
        assert monitor.peak > monitor.allocated > 0


def test_a_load_leaves_time_memory_and_processor() -> None:
    path = checkpoint("llama")
    with simulate("rocm-dcu:2"):
        measures = Loaded.load(llm_target, Path(path), cell("dcu", HALF)).measures
    assert measures is not None
    assert measures.seconds > 0
    assert measures.cpu_percent > 0
    assert 0 < measures.host_percent < 100
    assert measures.host.peak >= max(measures.host.before, measures.host.after) > 0
    assert measures.cards[0].place == "cuda:0"
    assert measures.cards[0].peak > 0


def test_the_suite_says_so(run_matrix: Callable[..., pytest.RunResult]) -> None:
    ids = (f"{HALF}.sim", f"{BFLOAT}.sim")
    result = run_matrix("dcu", "systems.bugs.dcu:HalfForAll", "rocm-dcu:2", *ids, more=("-k", "loads or dtypes"))

    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*embed_tokens*bfloat16*float16*", "*simulated: 1 failed, 1 partly run*"])
    result.stdout.fnmatch_lines([f"   cell     {ids[1]}"])
