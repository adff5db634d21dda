"""InfoLens: how to load is decided by the device, and a prefix says what the whole says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from lens import llm_target, model_loader

from pytest_llmdevice import simulate
from pytest_llmdevice.loading.load import Loaded
from systems.bugs import infolens as bugs
from systems.examined import EVERY, NOISE, cell, failures, says

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

CLAIMED = {
    "CPU, float32": ("qwen3.cpu.fp32.none.to", ""),
    "CPU, forced bfloat16": ("gemma3.cpu.bf16.none.to", ""),
    "CPU, INT8": ("llama.cpu.fp32.int8.device-map", ""),
    "CUDA, float16": ("gemma3.cuda0.fp16.none.auto", "cuda"),
    "CUDA, float16, several cards": ("llama.cuda0.fp16.none.auto", "cuda:2"),
    "CUDA, INT8": ("qwen3.cuda0.fp16.int8.auto", "cuda"),
    "MPS, float16": ("qwen3.mps.fp16.none.auto", "mps"),
    "MPS, float16, tied": ("gemma3.mps.fp16.none.auto", "mps"),
}

FORCED = {"FORCE_INT8": "1"}


@pytest.mark.parametrize("claimed", CLAIMED)
def test_the_loader_passes(claimed: str) -> None:
    identity, machine = CLAIMED[claimed]
    assert failures(llm_target, cell("infolens", identity), machine) == {}


@pytest.mark.parametrize(
    ("identity", "machine"), [("qwen3.cpu.bf16.none.to", ""), ("gemma3.cuda0.fp16.int8.auto", "cuda:2")]
)
def test_the_loader_passes_every_check(identity: str, machine: str) -> None:
    assert failures(llm_target, cell("infolens", identity), machine, until=EVERY) == {}


class TestThePlan:
    @pytest.mark.parametrize(
        ("device", "environment", "expected"),
        [
            ("cpu", {}, (None, torch.float32, False)),
            ("cpu", {"CPU_FORCE_BFLOAT16": "1"}, (None, torch.bfloat16, False)),
            ("cpu", FORCED, ("cpu", torch.float32, True)),
            ("cuda", {}, ("auto", torch.float16, False)),
            ("cuda", FORCED, ("auto", torch.float16, True)),
            ("mps", {}, ("auto", torch.float16, False)),
        ],
    )
    def test_is_made_from_the_device_and_the_environment(
        self, device: str, environment: dict[str, str], expected: tuple[Any, ...]
    ) -> None:
        plan = model_loader.decide(torch.device(device), environment)
        assert (plan.device_map, plan.dtype, plan.int8) == expected

    def test_int8_is_ignored_on_mps_with_a_warning_and_the_model_is_right(self) -> None:
        class Forced:
            def load(self, folder: str, asked: Any) -> Any:
                return model_loader.load_model(folder, model_loader.decide(asked.torch_device, FORCED))

        with pytest.warns(UserWarning, match="MPS does not support INT8; FORCE_INT8 is ignored"):
            found = failures(Forced(), cell("infolens", "llama.mps.fp16.none.auto"), "mps")
        assert found == {}

    @pytest.mark.parametrize(
        ("device", "installed", "expected"),
        [
            ("cpu", True, "eager"),
            ("mps", True, "eager"),
            ("cuda", True, "flash_attention_2"),
            ("cuda", False, "eager"),
        ],
    )
    def test_attention_is_the_devices(
        self, device: str, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_loader, "find_spec", lambda name: name if installed else None)
        assert model_loader.attention_for(torch.device(device)) == expected

    def test_the_matrix_has_flash_attention_on_cuda_alone(self) -> None:
        assert cell("infolens", "llama.cuda0.fp16.none.auto.flash_attention_2").attention == "flash_attention_2"
        with pytest.raises(KeyError):
            cell("infolens", "llama.mps.fp16.none.auto.flash_attention_2")


class TestAGuardTakenOut:
    @pytest.mark.parametrize(
        ("target", "identity", "machine", "patterns"),
        [
            (bugs.HalfOnTheCpu, "qwen3.cpu.fp32.none.to", "", ["embed_tokens.*float32.*float16"]),
            (bugs.IgnoresBfloat16, "qwen3.cpu.bf16.none.to", "", ["embed_tokens.*bfloat16.*float32"]),
            (bugs.IgnoresInt8, "qwen3.cpu.fp32.int8.device-map", "", ["q_proj.*Linear8bitLt.*Linear with float32"]),
            (bugs.IgnoresInt8, "llama.cuda0.fp16.int8.auto", "cuda", ["q_proj.*Linear8bitLt.*Linear with float16"]),
            (bugs.Int8Anywhere, "llama.mps.fp16.none.auto", "mps", ["q_proj.*Linear8bitLt"]),
            (bugs.LeftOnTheCpu, "gemma3.mps.fp16.none.auto", "mps", ["embed_tokens.*mps.*cpu"]),
        ],
    )
    def test_is_caught(self, target: Any, identity: str, machine: str, patterns: list[str]) -> None:
        assert says(failures(target(), cell("infolens", identity), machine, until="quantization"), *patterns, "^hint: ")


class TestAPrefix:
    @pytest.mark.parametrize(
        ("identity", "machine"), [("qwen3.cpu.fp32.none.to", ""), ("llama.cuda0.fp16.none.auto", "cuda")]
    )
    def test_that_is_told_what_follows_is_caught_and_is_not_taken_for_noise(self, identity: str, machine: str) -> None:
        found = failures(bugs.SeesTheFuture(), cell("infolens", identity), machine, until="prefix")
        assert says(found, "logits|prefix", "mask")

    def test_says_what_the_whole_says_exactly_in_float32(self) -> None:
        model = llm_target.load(checkpoint("qwen3"), cell("infolens", "qwen3.cpu.fp32.none.to"))
        ids = torch.arange(40)[None]
        with torch.inference_mode():
            whole, prefix = model(ids).logits[:, :20], model(ids[:, :20]).logits
        # Exactly, but for the order in which products of another shape are summed.
        torch.testing.assert_close(prefix, whole, rtol=0, atol=2e-5)


class TestLocalFilesFirst:
    NAME = "lens/tiny"

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        """A Hugging Face cache that has the model."""
        folder = tmp_path / "models--lens--tiny"
        shutil.copytree(checkpoint("llama"), folder / "snapshots" / "abc")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        return tmp_path

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
        """`local_files_only` of each call, in their order."""
        calls: list[bool] = []
        real = model_loader.snapshot_download

        def noted(name: str, *, cache_dir: Path, local_files_only: bool) -> str:
            calls.append(local_files_only)
            return real(name, cache_dir=cache_dir, local_files_only=True) if local_files_only else "from the hub"

        monkeypatch.setattr(model_loader, "snapshot_download", noted)
        return calls

    def test_a_folder_is_taken_as_it_is(self, asked: list[bool], tmp_path: Path) -> None:
        assert model_loader.local_first(str(tmp_path)) == str(tmp_path)
        assert asked == []

    def test_what_is_in_the_cache_is_not_asked_of_the_hub(self, cache: Path, asked: list[bool]) -> None:
        path = model_loader.local_first(self.NAME, cache)
        assert asked == [True]
        model = model_loader.load_model(path, model_loader.decide(torch.device("cpu"), {}))
        assert model.dtype is torch.float32
        assert model_loader.load_tokenizer(path).vocab_size

    def test_the_hub_comes_second(self, tmp_path: Path, asked: list[bool]) -> None:
        assert model_loader.local_first(self.NAME, tmp_path) == "from the hub"
        assert asked == [True, False]


def test_a_load_leaves_its_time_and_a_summary_of_the_cards() -> None:
    path = checkpoint("llama")
    with simulate("cuda:2"):
        loaded = Loaded.load(llm_target, Path(path), cell("infolens", "llama.cuda0.fp16.none.auto"))
        # One card or both: that is accelerate's choice.
        places = {str(parameter.device) for parameter in loaded.model.parameters()}
    measures = loaded.measures
    assert measures is not None
    assert measures.seconds > 0
    assert {memory.place for memory in measures.cards if memory.peak >= memory.after > 10_000} == places
    assert all(f"{place}: " in measures.summary for place in places)
    assert "float16" in measures.summary


def test_int8_takes_a_quarter_of_the_memory_of_a_layer() -> None:
    sizes = {}
    for quantization, identity in (("none", "llama.cpu.fp32.none.to"), ("int8", "llama.cpu.fp32.int8.device-map")):
        model = llm_target.load(checkpoint("llama"), cell("infolens", identity))
        sizes[quantization] = model.model.layers[0].mlp.down_proj.weight.nbytes
    assert sizes["none"] == 4 * sizes["int8"]


def test_the_suite_says_so(run_matrix: Callable[..., pytest.RunResult]) -> None:
    ids = ("qwen3.cpu.fp32.none.to", "qwen3.cpu.bf16.none.to")
    result = run_matrix("infolens", "systems.bugs.infolens:IgnoresBfloat16", "", *ids, more=("-k", "loads or dtypes"))

    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*embed_tokens*bfloat16*float32*", "*: 1 failed, 1 partly run*"])
    result.stdout.fnmatch_lines([f"   cell     {ids[1]}"])
