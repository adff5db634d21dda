"""The reference outputs: what they hold, and when they are computed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pytest_llmdevice.oracle import maker
from pytest_llmdevice.oracle import reference as module
from pytest_llmdevice.oracle.reference import Reference, compute, logits_dtype, reference

Checkpoint = Callable[[str], str]

PROMPTS = [[72, 101, 108, 108, 111], [50, 32]]
NEW = 3


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each computation."""
    calls: list[int] = []

    def counted(function: Callable[..., Reference], *arguments: object) -> Reference:
        calls.append(1)
        return function(*arguments)

    monkeypatch.setattr(module, "ask", counted)
    return calls


def same(one: Reference, other: Reference) -> bool:
    return (
        one.tokens == other.tokens
        and all(map(torch.equal, one.logits, other.logits))
        and all(map(torch.equal, one.steps, other.steps))
    )


@pytest.mark.parametrize("family", ["llama", "t5", "mamba"])
def test_each_prompt_has_logits_tokens_and_the_logits_they_were_chosen_from(
    family: str, checkpoint: Checkpoint
) -> None:
    found = reference(checkpoint(family), PROMPTS, NEW)
    assert [tuple(logits.shape) for logits in found.logits] == [(5, 320), (2, 320)]
    assert [tuple(steps.shape) for steps in found.steps] == [(NEW, 320)] * 2
    assert [tuple(steps.argmax(-1).tolist()) for steps in found.steps] == list(found.tokens)
    assert {logits.dtype for logits in (*found.logits, *found.steps)} == {torch.float32}


def test_the_logits_are_those_of_a_plain_load(checkpoint: Checkpoint) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(checkpoint("gpt2"), dtype=torch.float32)
    found = reference(checkpoint("gpt2"), PROMPTS, NEW)
    with torch.inference_mode():
        for prompt, logits in zip(PROMPTS, found.logits, strict=True):
            # The reference uses another implementation of attention than a plain load does.
            torch.testing.assert_close(plain(torch.tensor([prompt])).logits[0], logits, rtol=1e-4, atol=1e-4)


def test_no_prompt_takes_part_in_the_outputs_of_another(checkpoint: Checkpoint) -> None:
    together, alone = (reference(checkpoint("llama"), prompts, NEW) for prompts in (PROMPTS, PROMPTS[1:]))
    assert torch.equal(together.logits[1], alone.logits[0])
    assert together.tokens[1] == alone.tokens[0]


def test_without_a_folder_nothing_is_kept(checkpoint: Checkpoint, computed: list[int]) -> None:
    for _ in range(2):
        reference(checkpoint("llama"), PROMPTS, NEW)
    assert len(computed) == 2


def test_what_was_computed_is_read_again(checkpoint: Checkpoint, tmp_path: Path, computed: list[int]) -> None:
    first = reference(checkpoint("llama"), PROMPTS, NEW, tmp_path / "new" / "folder")
    again = reference(checkpoint("llama"), PROMPTS, NEW, tmp_path / "new" / "folder")
    assert len(computed) == 1
    assert same(first, again)


@pytest.mark.parametrize(
    ("prompts", "new_tokens"), [([[72, 101], [50, 32]], NEW), (PROMPTS[::-1], NEW), (PROMPTS, NEW + 1)]
)
def test_other_prompts_and_lengths_are_computed_on_their_own(
    prompts: list[list[int]], new_tokens: int, checkpoint: Checkpoint, tmp_path: Path, computed: list[int]
) -> None:
    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    other = reference(checkpoint("llama"), prompts, new_tokens, tmp_path)
    assert len(computed) == 2
    assert same(other, compute(checkpoint("llama"), prompts, new_tokens))


def test_another_checkpoint_at_the_same_place_is_computed_anew(
    tiny_llama: Path, tmp_path: Path, computed: list[int]
) -> None:
    prompts = [[1, 2, 3]]
    first = reference(str(tiny_llama), prompts, NEW, tmp_path / "kept")
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.lm_head.weight.data.mul_(2)
    model.save_pretrained(tiny_llama)
    second = reference(str(tiny_llama), prompts, NEW, tmp_path / "kept")
    assert len(computed) == 2
    torch.testing.assert_close(second.logits[0], 2 * first.logits[0])


def test_another_version_of_a_library_is_computed_anew(
    checkpoint: Checkpoint, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    monkeypatch.setattr(maker, "version", lambda library: f"{library} of tomorrow")
    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    assert len(computed) == 2


@pytest.mark.parametrize("kept", [0, 4, 200, 5000])
def test_a_damaged_file_is_replaced(kept: int, checkpoint: Checkpoint, tmp_path: Path, computed: list[int]) -> None:
    first = reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    intact = path.read_bytes()
    assert len(intact) > kept
    path.write_bytes(intact[:kept])
    again = reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    assert len(computed) == 2
    assert same(first, again)
    assert path.read_bytes() == intact


def test_a_file_without_all_its_tensors_is_replaced(
    checkpoint: Checkpoint, tmp_path: Path, computed: list[int]
) -> None:
    from safetensors.torch import load_file, save_file

    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    tensors = load_file(path)
    del tensors["steps.1"]
    save_file(tensors, path)
    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    assert len(computed) == 2


def test_no_temporary_file_is_left(checkpoint: Checkpoint, tmp_path: Path) -> None:
    reference(checkpoint("llama"), PROMPTS, NEW, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".lock"}


@pytest.mark.parametrize(("family", "dtype"), [("llama", "bfloat16"), ("t5", "float16"), ("mamba", "float32")])
def test_the_dtype_of_logits_is_that_of_a_plain_load(family: str, dtype: str, checkpoint: Checkpoint) -> None:
    expected = "float32" if family == "mamba" else dtype
    assert logits_dtype(checkpoint(family), dtype) == expected
