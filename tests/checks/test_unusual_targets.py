"""No false alarm on right targets that do what few do, and what is wrong about them all the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from checks.unusual import (
    OwnHead,
    Target,
    added,
    as_array,
    as_lists,
    ignored_filling,
    one_by_one,
    packed,
    plain,
    under_autocast,
    with_masks,
    without_filling,
)
from covering import in_turn
from transformers.models.llama import modeling_llama

from pytest_llmdevice import BuiltinTarget, Cell, Finding, examine, simulate, zoo
from pytest_llmdevice.diagnosis.hints.generation import MASK
from pytest_llmdevice.diagnosis.hints.state import CHECKPOINT
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.zoo import cache_directory

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"),
]


def found(
    target: Any,
    cell: Cell,
    checkpoint: Path | None = None,
    folder: Path | None = None,
    *,
    until: str = vocabulary.checks()[-1],
) -> dict[str, Any]:
    """What each check finds, where it finds something; `until` is the last one to ask."""
    card = cell.kind != "cpu"
    path, references = checkpoint or zoo.checkpoint(cell.model), folder or cache_directory() / "references"
    findings = {}
    with simulate("cuda:2") if card else nullcontext():
        for result in examine(target, path, cell, beside="" if card else "cuda:2", folder=references):
            findings[result.check] = result.findings
            if result.check == until:
                break
    return {check: made for check, made in findings.items() if made}


def on(family: str, device: str, dtype: str, **more: Any) -> Cell:
    return Cell(family, device, dtype, simulated=device != "cpu", **more)


@pytest.mark.parametrize(
    ("target", "cell"),
    [
        (Target(as_array), on("llama", "cpu", "float32")),
        (Target(plain), on("gemma3", "cpu", "bfloat16")),
        (Target(packed), on("llama", "cpu", "float32")),
        (Target(packed), on("qwen2", "cuda:1", "bfloat16")),
        (Target(with_masks), on("mistral", "cpu", "float32")),
        (Target(with_masks), on("gemma3", "cuda:1", "float16")),
        (Target(under_autocast), on("gpt2", "cuda:1", "float16")),
        (Target(one_by_one, OwnHead), on("gemma3", "cpu", "bfloat16")),
        (Target(one_by_one, OwnHead), on("qwen2", "cuda:1", "float16")),
    ],
    ids=lambda value: value.id if isinstance(value, Cell) else getattr(value, "_function").__name__,  # noqa: B009
)
def test_it_passes(target: Target, cell: Cell) -> None:
    assert found(target, cell) == {}


def shows_padding(model: Any, prompts: Any, count: int) -> list[list[int]]:
    """`with_masks` whose masks hide no padding."""

    class Showing:
        dtype, config = model.dtype, model.config

        def get_input_embeddings(self) -> Any:
            return model.get_input_embeddings()

        def __call__(self, attention_mask: torch.Tensor, **options: Any) -> Any:
            width = attention_mask.shape[-1]
            everything = torch.ones(1, width, width, device=attention_mask.device).tril().bool()
            mask = added(everything, model.dtype)
            return model(attention_mask=mask.expand_as(attention_mask), **options)

    return with_masks(Showing(), prompts, count)


def test_a_mask_of_four_dimensions_that_shows_the_padding_is_found() -> None:
    findings = found(Target(shows_padding), on("llama", "cpu", "float32"), until="inputs")
    assert findings["inputs"][0].hint is MASK
    assert "attended to" in findings["inputs"][0].actual


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose model comes to an end within a few tokens."""
    folder = shutil.copytree(zoo.checkpoint("llama"), tmp_path_factory.mktemp("ending") / "llama")
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            told = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(told | {"eos_token_id": 112}))
    return folder


@pytest.mark.parametrize(
    ("target", "dtype"),
    in_turn(
        [BuiltinTarget(), Target(as_lists), Target(as_array), Target(without_filling), Target(ignored_filling)],
        ["float32", "bfloat16"],
    ),
    ids=["builtin", "lists", "array", "without filling", "ignored"],
)
def test_a_model_that_ends_early_is_no_fault(ending: Path, target: Any, dtype: str) -> None:
    findings = found(target, Cell("llama", "cpu", dtype), ending)
    # Ids that are none are said to be, and nothing else is.
    assert set(findings) <= ({"generation", "cards"} if target.__dict__.get("_function") is ignored_filling else set())


def test_the_model_does_end_early(ending: Path) -> None:
    model = BuiltinTarget().load(str(ending), Cell("llama", "cpu", "float32"))
    rows = as_lists(model, [list(b"Once upon a time"), list(b"The quick brown fox"), [5, 6, 7]], 8)
    assert any(112 in row[:-1] for row in rows)


def test_rows_that_end_with_the_first_are_found_where_the_model_ends_early(ending: Path) -> None:
    def together(model: Any, prompts: Any, count: int) -> list[list[int]]:
        rows = as_lists(model, prompts, count)
        stop = min((row.index(112) for row in rows if 112 in row), default=count) + 1
        return [row[:stop] for row in rows]

    assert "generation" in found(Target(together), Cell("llama", "cpu", "float32"), ending, until="generation")


def test_the_reference_is_made_before_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = modeling_llama.LlamaRMSNorm
    forward: Callable[..., torch.Tensor] = norm.forward

    def patched(model: Any) -> Any:
        monkeypatch.setattr(norm, "forward", lambda self, states: forward(self, states) * 1.5)
        return model

    cell = Cell("llama", "cpu", "float32")
    assert "agreement" in found(Target(change=patched), cell, folder=tmp_path, until="agreement")
    monkeypatch.undo()
    # And what is kept on disk for the next time is right.
    assert "agreement" not in found(BuiltinTarget(), cell, folder=tmp_path, until="agreement")


def test_a_load_that_writes_to_the_checkpoint_is_found(tmp_path: Path) -> None:
    folder = shutil.copytree(zoo.checkpoint("llama"), tmp_path / "llama")

    class Writing(BuiltinTarget):
        def load(self, checkpoint: str, cell: Cell) -> Any:
            path = Path(checkpoint) / "config.json"
            (path.parent / "cache-of-my-own.bin").write_bytes(b"1")
            path.write_text(path.read_text())
            os.utime(path, (2, 2))
            return super().load(checkpoint, cell)

    findings = found(Writing(), Cell("llama", "cpu", "float32"), folder)
    wrong = Finding("config.json of the checkpoint", "left as it was", "written to, when load came back", CHECKPOINT)
    assert findings == {"state": (wrong,)}


def test_a_flat_list_for_one_prompt_is_found() -> None:
    def squeezed(model: Any, prompts: Any, count: int) -> Any:
        rows = as_lists(model, prompts, count)
        return rows[0] if len(rows) == 1 else rows

    findings = found(Target(squeezed), Cell("llama", "cpu", "float32"), until="generation")
    assert findings["generation"][0].where == "what generate returned for prompt 0 by itself"
    assert findings["generation"][0].actual.startswith("a list that begins with int")


@pytest.mark.parametrize("names", [["mine"], ["a", "b"], ["default", "b"]])
def test_adapters_of_any_name_are_saved_and_read_again(names: list[str]) -> None:
    peft = pytest.importorskip("peft")

    def adapted(model: Any) -> Any:
        kind = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
        torch.manual_seed(0)
        found = peft.get_peft_model(model, peft.LoraConfig(**kind), adapter_name=names[0])
        for name in names[1:]:
            found.add_adapter(name, peft.LoraConfig(**kind))
        found.set_adapter(names[-1])
        return found.eval()

    findings = found(Target(change=adapted), Cell("llama", "cpu", "float32"), until="save")
    assert "save" not in findings
