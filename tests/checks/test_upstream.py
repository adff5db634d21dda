"""What a plain load of a cell does too is upstream's; what only the target does is its own, whatever it has patched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from pytest_llmdevice import Cell, Finding, examine, simulate
from pytest_llmdevice.checks import Result
from pytest_llmdevice.checks.upstream import SHARED, UNKNOWN, findings_of_plain_load, is_among
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.zoo.architectures import checkpoint_of

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

Tokens = Sequence[Sequence[int]]


@pytest.fixture(scope="module")
def bart() -> str:
    """Bart as a decoder: its positions count padding, so that a padded prompt says something else."""
    return str(checkpoint_of("bart-decoder"))


@pytest.fixture
def copied(tmp_path: Path, checkpoint: Callable[[str], str]) -> str:
    """A zoo checkpoint in a folder of its own, so that nothing is known of it."""
    shutil.copytree(checkpoint("llama"), tmp_path / "copy")
    return str(tmp_path / "copy")


def results(target: Any, folder: str) -> dict[str, Result]:
    return {result.check: result for result in examine(target, folder, Cell(f"path:{folder}", "cpu", "float32"))}


class Right(BuiltinTarget):
    """A loader of one's own that does nothing wrong."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        return model.eval()


def test_a_fault_of_the_architecture_is_upstream_s_and_no_pass(bart: str) -> None:
    found = results(Right(), bart)
    assert found["padding"].outcome == "upstream"
    assert not found["padding"].passed
    assert found["padding"].findings == ()
    assert found["padding"].evidence[SHARED] == 1
    assert found["padding"].source.startswith("BartForCausalLM of transformers ")
    assert "upstream: BartForCausalLM of transformers" in found["padding"].message()
    found["padding"].require()
    assert found["agreement"].outcome == "upstream"
    assert {result.outcome for name, result in found.items() if name not in {"agreement", "padding"}} == {"passed"}


class WithoutMask(Right):
    """Hands no mask to the model."""

    def generate(self, model: Any, prompts: Tokens, max_new_tokens: int) -> list[list[int]]:
        inputs = inputs_for(model, prompts)
        length = inputs["input_ids"].shape[1]
        mask = torch.ones_like(inputs["attention_mask"])
        with torch.inference_mode():
            output = model.generate(
                inputs["input_ids"],
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                min_new_tokens=max_new_tokens,
            )
        return [row[length:].tolist() for row in output]


def test_a_fault_of_generate_is_not_excused_by_itself(copied: str) -> None:
    found = results(WithoutMask(), copied)
    assert found["inputs"].outcome == "failed"
    assert found["agreement"].outcome == "failed"
    assert SHARED not in found["agreement"].evidence


class Forgetful(Right):
    """Keeps only half of the bits of what it has computed, from one step to the next."""

    def generate(self, model: Any, prompts: Tokens, max_new_tokens: int) -> list[list[int]]:
        rows = [list(prompt) for prompt in prompts]
        for row in rows:
            cache = None
            for _ in range(max_new_tokens):
                new = row if cache is None else row[-1:]
                with torch.inference_mode():
                    output = model(torch.tensor([new]), past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys.bfloat16().float(), layer.values.bfloat16().float()
                row.append(int(output.logits[0, -1].argmax()))
        return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def test_a_cache_that_generate_rounds_is_not_excused_by_itself(copied: str) -> None:
    found = results(Forgetful(), copied)
    assert {name for name, result in found.items() if result.outcome == "failed"} >= {"inputs", "cache"}
    assert not any(result.upstream for result in found.values())


def test_what_a_loader_patches_does_not_excuse_it(copied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = modeling_llama.LlamaRotaryEmbedding.forward

    def forward(self: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return inner(self, x, position_ids * 0 if position_ids.shape[1] == 1 else position_ids)

    class Patching(Right):
        def load(self, checkpoint: str, cell: Cell) -> Any:
            monkeypatch.setattr(modeling_llama.LlamaRotaryEmbedding, "forward", forward)
            return super().load(checkpoint, cell)

    found = results(Patching(), copied)
    assert found["cache"].outcome == "failed"
    assert not any(result.upstream for result in found.values())


def test_a_fault_beside_one_of_the_architecture_is_the_target_s(bart: str) -> None:
    class Padded(Right):
        """Its padding is worse than the architecture's."""

        def load(self, checkpoint: str, cell: Cell) -> Any:
            model = super().load(checkpoint, cell)
            forward = model.forward

            def loud(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
                output = forward(*args, attention_mask=attention_mask, **kwargs)
                if attention_mask is not None and not bool(attention_mask.all()):
                    output.logits = output.logits * 3
                return output

            model.forward = loud
            return model

    found = results(Padded(), bart)
    assert found["padding"].outcome == "failed"
    assert found["padding"].upstream == ()


def test_what_cannot_be_loaded_plainly_is_compared_with_nothing(copied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise LookupError("no plain load")

    monkeypatch.setattr("pytest_llmdevice.checks.upstream._plain", gone)
    found = results(WithoutMask(), copied)
    assert found["agreement"].outcome == "failed"
    assert found["agreement"].evidence[UNKNOWN] == "none to compare with: LookupError: no plain load"


def test_a_plain_load_has_nothing_to_find_where_the_architecture_is_right(copied: str) -> None:
    cell = Cell(f"path:{copied}", "cpu", "bfloat16")
    prompts = ((5, 6, 7), (9, 10, 11, 12))
    assert findings_of_plain_load(copied, cell, (), prompts, None, "padding") == ()
    own = Cell(f"path:{copied}", "cpu", "bfloat16", strategy="of-a-plugin")
    assert findings_of_plain_load(copied, own, (), prompts, None, "prefix") == ()


ERROR = Finding("logits, first at position 3", "the same, at most 0.1", "0.5", subject="logits", size=0.5)


@pytest.mark.parametrize(
    ("finding", "other", "same"),
    [
        (ERROR, Finding("logits, first at position 9", "the same", "0.4", subject="logits", size=0.4), True),
        (ERROR, Finding("logits, first at position 9", "the same", "0.2", subject="logits", size=0.2), False),
        (ERROR, Finding("other logits", "the same", "0.4", subject="other logits", size=0.4), False),
        (ERROR, Finding("logits", "the same", "nan", subject="logits", size=float("nan")), True),
        (
            Finding("logits", "the same", "nan", subject="logits", size=float("nan")),
            Finding("logits", "the same", "0.4", subject="logits", size=0.4),
            False,
        ),
        (Finding("mask", "on cuda:0", "on cpu"), Finding("mask", "on cuda:0", "on cuda:1"), True),
        (Finding("mask", "on cuda:0", "on cpu"), Finding("mask", "shape (2, 3)", "shape (1, 3)"), False),
        (
            Finding("forward, in a", "no exception", "ValueError: no", kind="exception"),
            Finding("cache, in b", "no exception", "ValueError: no", kind="exception"),
            True,
        ),
        (
            Finding("forward, in a", "no exception", "ValueError: no", kind="exception"),
            Finding("cache, in b", "no exception", "TypeError: other", kind="exception"),
            False,
        ),
        (
            Finding("forward", "no exception", "ValueError: no", kind="exception"),
            Finding("forward", "no exception", "a number"),
            False,
        ),
    ],
)
def test_the_same_fault_is_about_the_same_and_not_larger(finding: Finding, other: Finding, *, same: bool) -> None:
    assert is_among(finding, [other]) is same
    assert not is_among(finding, [])


def test_where_a_difference_begins_is_seen_though_the_class_was_patched(
    copied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: Any = modeling_llama.LlamaMLP.forward

    def larger(own: Any, hidden: torch.Tensor) -> Any:
        return inner(own, hidden) * 1.5

    class Patching(Right):
        def load(self, checkpoint: str, cell: Cell) -> Any:
            monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", larger)
            return super().load(checkpoint, cell)

    assert results(Patching(), copied)["agreement"].origin.startswith(
        "first differs at model.layers.0.mlp (LlamaMLP): expected"
    )


class LeavesMore(BuiltinTarget):
    """Has a table of its own accord on the cpu, beside the one that the library leaves there."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = super().load(checkpoint, cell)
        attention = model.transformer.h[0].attn
        attention.bias = attention.bias.cpu()
        return model


@pytest.mark.parametrize("strategy", ["auto", "split"])
@pytest.mark.parametrize("target", [BuiltinTarget, LeavesMore])
def test_what_the_library_s_own_map_leaves_out_is_upstream_s(target: Callable[[], Any], strategy: str) -> None:
    # Its table of positions is directly in the module that an automatic map takes apart.
    folder = str(checkpoint_of("openai-gpt"))
    cell = Cell(f"path:{folder}", "cuda:0", "bfloat16", strategy=strategy, simulated=True)
    with simulate("cuda:2"):
        found = next(result for result in examine(target(), folder, cell) if result.check == "placement")
    left = [finding.where for finding in found.upstream]
    assert left == (["transformer.position_ids"] if strategy == "auto" else [])
    own = [finding.where for finding in found.findings]
    assert own == ([] if target is BuiltinTarget else ["transformer.h.0.attn.bias"])
