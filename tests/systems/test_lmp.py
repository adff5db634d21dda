"""lmp: experts come from shared memory in the files' dtype, and leave in the configuration's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from experts import llm_target
from experts.restore import configured_dtype, expert_weights, published
from transformers import AutoModelForCausalLM, AutoTokenizer

from systems.bugs.lmp import AsTheyCame, ConvertedInVain, LeftOnMeta
from systems.examined import EVERY, NOISE, cell, failures, says

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

MODELS = ("deepseek-v3", "mixtral", "qwen3-moe")
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def identity(model: str, dtype: str, device: str = "cuda1") -> str:
    return f"{model}.{device}.{SHORT[dtype]}.none.shared-memory"


@pytest.fixture(scope="session")
def saved_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A checkpoint whose files are in a dtype; the zoo's own are in float32."""
    made: dict[tuple[str, str], Path] = {}

    def save(model: str, dtype: str) -> Path:
        if (model, dtype) not in made:
            source, folder = checkpoint(model), tmp_path_factory.mktemp(f"{model}-{dtype}")
            AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype)).save_pretrained(folder)
            AutoTokenizer.from_pretrained(source).save_pretrained(folder)
            made[model, dtype] = folder
        return made[model, dtype]

    return save


Saved = Callable[[str, str], Path]


class TestTheFix:
    @pytest.mark.parametrize("dtype", SHORT)
    @pytest.mark.parametrize("model", ["deepseek-v3", "mixtral"])
    def test_experts_are_in_the_dtype_of_the_configuration(self, model: str, dtype: str) -> None:
        assert failures(llm_target, cell("lmp", identity(model, dtype)), "cuda:2") == {}

    def test_every_check_passes(self) -> None:
        asked = cell("lmp", identity("mixtral", "bfloat16"))
        assert failures(llm_target, asked, "cuda:2", until=EVERY) == {}

    @pytest.mark.parametrize("model", ["mixtral", "qwen3-moe"])
    def test_the_cpu_too(self, model: str) -> None:
        assert failures(llm_target, cell("lmp", identity(model, "bfloat16", "cpu"))) == {}

    @pytest.mark.parametrize(
        ("model", "stored", "dtype"), [("mixtral", "bfloat16", "float32"), ("deepseek-v3", "bfloat16", "float16")]
    )
    def test_the_other_way_too(self, model: str, stored: str, dtype: str, saved_in: Saved) -> None:
        assert failures(llm_target, cell("lmp", identity(model, dtype)), "cuda:2", saved_in(model, stored)) == {}

    def test_a_conversion_is_logged_and_what_fits_is_not(self, caplog: pytest.LogCaptureFixture) -> None:
        path = checkpoint("mixtral")
        with caplog.at_level(logging.INFO, "experts.restore"):
            llm_target.load(path, cell("lmp", identity("mixtral", "float32", "cpu")))
            assert caplog.messages == []
            model = llm_target.load(path, cell("lmp", identity("mixtral", "bfloat16", "cpu")))
        assert len(caplog.messages) == len(expert_weights(model))
        assert caplog.messages[0].endswith("torch.float32 converted to torch.bfloat16")

    @pytest.mark.parametrize("written", ["bfloat16", "torch.bfloat16", torch.bfloat16])
    def test_the_configuration_may_write_its_dtype_as_it_likes(self, written: Any) -> None:
        class Configuration:
            dtype = written

        assert configured_dtype(Configuration()) is torch.bfloat16

    def test_the_segment_holds_what_the_files_hold(self, saved_in: Saved) -> None:
        with published(str(saved_in("mixtral", "bfloat16"))) as tensors:
            dtypes = {tensor.dtype for tensor in tensors.values()}
            names = list(tensors)
        assert dtypes == {torch.bfloat16}
        assert names
        assert all("expert" in name for name in names)


class TestTheBug:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("model", MODELS)
    def test_is_caught_and_each_expert_is_named(self, model: str, dtype: str) -> None:
        found = failures(AsTheyCame(), cell("lmp", identity(model, dtype)), "cuda:2", until="dtypes")
        assert says({"dtypes": found["dtypes"]}, rf"experts.*{dtype}.*float32", "^hint: ")
        assert "self_attn" not in found["dtypes"]

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_is_caught_the_other_way_too(self, dtype: str, saved_in: Saved) -> None:
        folder = saved_in("mixtral", "bfloat16")
        found = failures(AsTheyCame(), cell("lmp", identity("mixtral", dtype)), "cuda:2", folder, until="dtypes")
        assert says({"dtypes": found["dtypes"]}, rf"experts.*{dtype}.*bfloat16")

    def test_is_none_where_the_files_have_the_dtype_already(self) -> None:
        assert failures(AsTheyCame(), cell("lmp", identity("mixtral", "float32")), "cuda:2") == {}

    def test_a_conversion_that_accelerate_takes_back_is_caught(self) -> None:
        found = failures(ConvertedInVain(), cell("lmp", identity("deepseek-v3", "bfloat16")), "cuda:2", until="dtypes")
        assert says({"dtypes": found["dtypes"]}, r"experts.*bfloat16.*float32")

    def test_experts_that_nobody_restored_are_named(self) -> None:
        found = failures(LeftOnMeta(), cell("lmp", identity("mixtral", "bfloat16", "cpu")), until="meta")
        assert says({"meta": found["meta"]}, r"layers.1.*experts.*meta", "^hint: ")


def test_the_suite_says_so(run_matrix: Callable[..., pytest.RunResult]) -> None:
    ids = (identity("mixtral", "float32") + ".sim", identity("mixtral", "bfloat16") + ".sim")
    result = run_matrix("lmp", "systems.bugs.lmp:AsTheyCame", "cuda:2", *ids, more=("-k", "loads or dtypes"))

    assert result.ret == 1
    result.stdout.fnmatch_lines_random(["*experts*bfloat16*float32*", "*simulated: 1 failed, 1 partly run*"])
    result.stdout.fnmatch_lines([f"   cell     {ids[1]}"])
