"""The strategy that restores a model from shared memory: nothing left behind, nothing in another dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.loading.strategies.shared_memory import published, shared_memory
from pytest_llmdevice.loading.strategies.whole import to

Checkpoint = Callable[[str], str]

strategy = import_module("pytest_llmdevice.loading.strategies.shared_memory")


@pytest.fixture(autouse=True)
def segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the segments that were made; each test ends with the proof that none of them is there any more."""
    made: list[str] = []

    class Recorded(SharedMemory):
        def __init__(self, *, create: bool, size: int) -> None:
            super().__init__(create=create, size=size)
            made.append(self.name)

    monkeypatch.setattr(strategy, "SharedMemory", Recorded)
    yield made
    for name in made:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def state(model: Any) -> dict[str, torch.Tensor]:
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return dict(named)


@pytest.mark.parametrize("family", zoo.families())
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_tensor_is_what_a_plain_load_gives(family: str, dtype: str, checkpoint: Checkpoint) -> None:
    cell = Cell(family, "cpu", dtype)
    restored, plain = state(shared_memory(checkpoint(family), cell)), state(to(checkpoint(family), cell))
    assert restored.keys() == plain.keys()
    for name, tensor in plain.items():
        assert restored[name].dtype == tensor.dtype, name
        assert torch.equal(restored[name], tensor), name


@pytest.mark.parametrize("family", [name for name in zoo.families() if zoo.family(name).tied])
def test_ties_are_kept(family: str, checkpoint: Checkpoint) -> None:
    model: Any = shared_memory(checkpoint(family), Cell(family, "cpu", "bfloat16"))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.parametrize("saved", ["bfloat16", "float16"])
def test_a_checkpoint_in_half_precision_is_widened(saved: str, tiny_llama: Path, tmp_path: Path) -> None:
    half: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=getattr(torch, saved))
    half.save_pretrained(tmp_path / "half")
    model = shared_memory(str(tmp_path / "half"), Cell("path:half", "cpu", "float32"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, half.get_parameter(name).float())


def test_float32_is_kept_where_the_class_asks_for_it(checkpoint: Checkpoint) -> None:
    t5 = state(shared_memory(checkpoint("t5"), Cell("t5", "cpu", "float16")))
    kept = {name.rpartition(".wo.")[1] for name, tensor in t5.items() if tensor.dtype == torch.float32}
    assert kept == {".wo."}
    deepseek = state(shared_memory(checkpoint("deepseek-v3"), Cell("deepseek-v3", "cpu", "bfloat16")))
    assert {name.rpartition(".")[2] for name, tensor in deepseek.items() if tensor.dtype == torch.float32} == {
        "e_score_correction_bias",
        "inv_freq",
        "original_inv_freq",
    }


def test_the_weights_outlive_the_segment(checkpoint: Checkpoint) -> None:
    # In the checkpoint's own dtype nothing has to be converted, and a careless load would keep the view.
    model = shared_memory(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    plain = to(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name))


def test_tensors_are_published_in_one_segment_under_their_names(checkpoint: Checkpoint, segments: list[str]) -> None:
    plain = to(checkpoint("gpt2"), Cell("gpt2", "cpu", "float32"))
    with published(checkpoint("gpt2")) as (weights, _):
        assert len(segments) == 1
        assert weights.keys() == plain.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in plain.state_dict().items())


def test_nothing_is_left_when_restoring_fails_halfway(
    checkpoint: Checkpoint, segments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate.utils

    write = accelerate.utils.set_module_tensor_to_device
    written: list[str] = []

    def fail_at_the_fifth(model: Any, name: str, *arguments: Any, **options: Any) -> None:
        written.append(name)
        if len(written) == 5:
            raise RuntimeError("planted")
        write(model, name, *arguments, **options)

    monkeypatch.setattr(accelerate.utils, "set_module_tensor_to_device", fail_at_the_fifth)
    with pytest.raises(RuntimeError, match="planted"):
        shared_memory(checkpoint("llama"), Cell("llama", "cpu", "bfloat16"))
    assert len(segments) == 1


def test_nothing_is_left_when_the_checkpoint_is_broken(tiny_llama: Path) -> None:
    weights = tiny_llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Exception, match="deserializing header"):
        shared_memory(str(tiny_llama), Cell("path:x", "cpu", "float32"))


def test_the_generation_defaults_of_the_checkpoint_come_along(checkpoint: Checkpoint) -> None:
    restored: Any = shared_memory(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    plain: Any = to(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    assert restored.generation_config.to_dict() == plain.generation_config.to_dict()
