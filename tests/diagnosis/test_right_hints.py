"""Hints that were once wrong: each is given for what it says, and not for its neighbour."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from torch import nn

from pytest_llmdevice import Cell, Finding, Result, examine, simulate
from pytest_llmdevice.diagnosis.finding import Hint
from pytest_llmdevice.diagnosis.grounds import grounded
from pytest_llmdevice.diagnosis.hints import dtypes as dtype_hints
from pytest_llmdevice.diagnosis.hints import generation, loads, placement, quantization, sequences, state, values
from pytest_llmdevice.diagnosis.places import PlacementEvidence, cause_of_place
from pytest_llmdevice.diagnosis.replaced import replaced_methods
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.loading.target import BuiltinTarget

Rows = Sequence[Sequence[int]]
FP32 = Cell("llama", "cpu", "float32")
BF16 = Cell("llama", "cpu", "bfloat16")


class Loader:
    """A target that changes what a plain load gives, or what the built-in generate is handed."""

    def __init__(self, change: Any = None, way: Any = None) -> None:
        self._change = change
        if way is not None:
            self.generate = way

    def load(self, folder: str, cell: Cell) -> Any:
        model = BuiltinTarget().load(folder, cell)
        return model if self._change is None else self._change(model) or model


def first(target: Any, cell: Cell, check: str = "") -> Result:
    """The first result that did not pass, or that of `check`."""
    results = examine(target, checkpoint(cell.model), cell)
    return next(result for result in results if (result.check == check if check else not result.passed))


def hints_of(result: Result) -> set[str]:
    return {finding.hint.name if finding.hint is not None else "" for finding in result.findings}


class Renamed(nn.Module):
    """A wrapper that takes the model apart and gives its parts names of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.words, self.blocks = model.model.embed_tokens, model.model.layers
        self.last, self.answer, self.turns = model.model.norm, model.lm_head, model.model.rotary_emb


def test_the_parts_of_a_wrapper_that_renames_are_recognized() -> None:
    results = {result.check: result for result in examine(Loader(Renamed), checkpoint("llama"), FP32)}
    assert all(results[check].passed for check in ("loads", "placement", "dtypes", "values", "tied"))
    # It has no forward of its own.
    assert results["forward"].findings[0].kind == "exception"


def test_a_wrapper_with_other_numbers_under_other_names_is_said_to_rename() -> None:
    def other(model: Any) -> Any:
        torch.manual_seed(0)
        for weight in model.parameters():
            weight.data = torch.randn_like(weight)
        return Renamed(model)

    (finding,) = first(Loader(other), FP32).findings
    assert finding.hint == loads.RENAMED
    assert finding.expected == "the tensors of the checkpoint under the names that they have there"


def test_too_many_tokens_are_not_called_lost_rows() -> None:
    def way(model: Any, prompts: Rows, new: int) -> Rows:
        return generate(model, prompts, new + 2 * (len(prompts) > 5))

    result = first(Loader(way=way), FP32)
    assert result.check == "agreement"
    assert hints_of(result) == {generation.TOO_MANY.name}


def test_tokens_are_not_said_to_differ_from_a_right_forward_pass_where_it_is_wrong() -> None:
    def change(model: Any) -> None:
        inner = model.lm_head.forward
        model.lm_head.forward = lambda hidden: -inner(hidden)

    result = first(Loader(change), FP32)
    assert result.check == "agreement"
    assert [finding.hint for finding in result.findings] == [values.NUMERIC] + [None] * (len(result.findings) - 1)
    assert len(result.findings) > 1


def test_a_history_that_is_kept_is_not_called_sampling() -> None:
    kept: list[Any] = []

    def way(model: Any, prompts: Rows, new: int) -> Rows:
        from transformers import DynamicCache

        if not kept:
            kept.append(DynamicCache(config=model.config))
        rows = []
        for prompt in prompts:
            row: list[int] = []
            ids = list(prompt)
            for _ in range(new):
                past = kept[0].get_seq_length()
                with torch.inference_mode():
                    output = model(
                        torch.tensor([ids]), attention_mask=torch.ones(1, past + len(ids)), past_key_values=kept[0]
                    )
                ids = [int(output.logits[0, -1].argmax())]
                row += ids
            rows.append(row)
        return rows

    result = first(Loader(way=way), FP32)
    assert result.check == "generation"
    assert hints_of(result) == {generation.KEPT.name}


def generating(**settings: Any) -> Any:
    """A way to generate for each prompt by itself, as many tokens as are asked for, with `settings`."""

    def way(model: Any, prompts: Rows, new: int) -> Rows:
        options = {"max_new_tokens": new, "min_new_tokens": new, **settings}
        return [model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist() for prompt in prompts]

    return way


def test_sampling_is_called_so() -> None:
    way = generating(do_sample=True, temperature=9.0)
    assert hints_of(first(Loader(way=way), FP32)) == {generation.RANDOM.name}


@pytest.mark.parametrize("part", ["lm_head", "model.embed_tokens", "model.layers.0.mlp.up_proj"])
def test_a_part_that_was_cast_alone_is_neither_resized_nor_prepared_for_training(part: str) -> None:
    result = first(Loader(lambda model: model.get_submodule(part).float() and None), BF16)
    assert result.check == "dtypes"
    assert hints_of(result) == {dtype_hints.LATE.name}


def test_a_head_of_a_quantized_model_that_was_cast_is_not_prepared_for_training() -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell("llama", "cpu", "bfloat16", "nf4")
    result = first(Loader(lambda model: model.lm_head.float() and None), cell, "dtypes")
    assert hints_of(result) == {dtype_hints.LATE.name}


def test_a_head_of_a_larger_vocabulary_in_float32_is_called_resized() -> None:
    def change(model: Any) -> None:
        head = nn.Linear(model.config.hidden_size, model.config.vocab_size + 8, bias=False)
        with torch.no_grad():
            head.weight[: model.config.vocab_size] = model.lm_head.weight.float()
        model.lm_head = head

    assert hints_of(first(Loader(change), BF16, "dtypes")) == {dtype_hints.GROWN.name}


def test_a_packed_head_is_not_called_resized() -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell("llama", "cpu", "bfloat16", "nf4")

    class Packs:
        def load(self, folder: str, _: Cell) -> Any:
            from transformers import AutoModelForCausalLM, BitsAndBytesConfig

            kind: Any = BitsAndBytesConfig
            config = kind(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=torch.bfloat16,
                llm_int8_skip_modules=["none of these"],
            )
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
            )

    result = first(Packs(), cell)
    assert quantization.EXCLUDED.name in hints_of(result)
    assert dtype_hints.GROWN.name not in hints_of(result)


def test_a_router_in_half_is_not_called_positions_in_half() -> None:
    cell = Cell("qwen3-moe", "cpu", "float32")

    def change(model: Any) -> None:
        def half(module: Any, _: Any, output: Any) -> Any:
            logits, *rest = output if isinstance(output, tuple) else (output,)
            rounded = logits.to(torch.bfloat16).to(logits.dtype)
            return (rounded, *rest) if isinstance(output, tuple) else rounded

        for name, module in model.named_modules():
            if name.endswith(("mlp.gate", "router")):
                module.register_forward_hook(half)

    for result in examine(Loader(change), checkpoint(cell.model), cell):
        assert not hints_of(result) & {sequences.FAR.name, generation.POSITIONS.name, sequences.LENGTH.name}, result


def test_what_a_load_replaced_is_named_where_no_module_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    own = LlamaForCausalLM.forward

    def far_ones_only(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        output = own(self, input_ids=input_ids, **rest)
        if input_ids is not None and input_ids.shape[1] > 256:
            output.logits = -output.logits
        return output

    def change(model: Any) -> None:
        monkeypatch.setattr(LlamaForCausalLM, "forward", far_ones_only)

    result = first(Loader(change), FP32)
    assert "no module" not in result.origin
    assert "LlamaForCausalLM.forward, by " in result.origin
    assert "far_ones_only" in result.origin


def test_what_was_handed_to_the_model_stands_beside_the_prompt() -> None:
    def way(model: Any, prompts: Rows, new: int) -> Rows:
        return generate(model, [[257, 258, *prompt] for prompt in prompts], new)

    result = first(Loader(way=way), FP32, "agreement")
    (finding, *_) = result.findings
    assert "handed to the model: [257, 258, " in finding.actual
    assert " for the prompt [" in finding.actual
    assert ": 2 tokens in front" in finding.actual
    assert finding.hint == generation.IN_FRONT


def test_a_penalty_is_found_by_the_logits_that_its_tokens_do_not_have() -> None:
    way = generating(do_sample=False, repetition_penalty=9.0)
    assert generation.SETTINGS.name in hints_of(first(Loader(way=way), FP32))


class Piped:
    """Lets transformers' pipeline load the model, with a map for one device."""

    def load(self, folder: str, cell: Cell) -> Any:
        from transformers import pipeline

        made: Any = pipeline("text-generation", model=folder, dtype=cell.torch_dtype, device_map={"": cell.device})
        return made.model


def test_a_pipeline_that_moves_the_model_to_the_first_card_is_named() -> None:
    cell = Cell("llama", "cuda:1", "bfloat16", simulated=True)
    with simulate("cuda:2"):
        result = first(Piped(), cell)
    assert result.check == "placement"
    assert {finding.actual for finding in result.findings} == {"cuda:0"}
    assert hints_of(result) == {placement.PIPELINE.name}


class Unpiped:
    """Imports what makes pipelines, makes none, and takes the first card."""

    def load(self, folder: str, cell: Cell) -> Any:
        from transformers import AutoModelForCausalLM, pipeline

        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=cell.torch_dtype)
        return model.to("cuda") if pipeline.__name__ else None


def test_an_import_of_pipelines_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("transformers.pipelines")]:
        monkeypatch.delitem(sys.modules, name)
    cell = Cell("llama", "cuda:1", "bfloat16", simulated=True)
    with simulate("cuda:2"):
        result = first(Unpiped(), cell)
    assert hints_of(result) == {placement.WRONG_INDEX.name}


@pytest.mark.parametrize(
    ("seen", "place", "hint"),
    [
        (("cuda:0",), "cuda:0", placement.WRONG_INDEX),
        (("cpu",), "cpu", placement.NEVER_MOVED),
        (("cpu", "cuda:1"), "cpu", placement.LEFT_BEHIND),
        (("cuda:0", "cuda:1"), "cuda:0", placement.WRONG_INDEX),
        (("cuda:2", "cuda:1"), "cuda:2", None),
        (("meta", "cuda:1"), "meta", placement.META),
    ],
)
def test_a_wrong_place_is_explained_by_the_places_of_others(
    seen: tuple[str, ...], place: str, hint: Hint | None
) -> None:
    evidence = PlacementEvidence(Cell("llama", "cuda:1", "bfloat16"), seen)
    assert cause_of_place(evidence, place, buffer=False, brought=False) == hint


def test_several_cards_that_were_asked_for_are_no_wrong_index() -> None:
    split = Cell("llama", "cuda:0", "bfloat16", "none", "split")
    by_hand = PlacementEvidence(split, ("cuda:0", "cuda:1"), cards=2)
    assert cause_of_place(by_hand, "cuda:1", buffer=False, brought=False) == placement.NO_HOOKS
    moved = PlacementEvidence(split, ("cuda:0",), ("cuda:0", "cuda:1"), hooked=True, cards=2)
    assert cause_of_place(moved, "cuda:0", buffer=False, brought=False) == placement.STALE


def test_an_offload_that_was_asked_for_is_no_spread() -> None:
    cell = Cell("llama", "cuda:1", "bfloat16", "none", "cpu-offload")
    seen = PlacementEvidence(cell, ("cuda:0", "meta"), ("cuda:0", "cpu"), hooked=True, offload=True)
    assert cause_of_place(seen, "cuda:0", buffer=False, brought=False) == placement.WRONG_INDEX


def test_a_strategy_of_a_plugin_is_judged_by_what_it_is() -> None:
    own = Cell("llama", "cuda:0", "bfloat16", "none", "by-speed")
    seen = PlacementEvidence(own, ("cuda:0",), ("cuda:0", "cuda:1"), hooked=True, automatic=True)
    assert cause_of_place(seen, "cuda:0", buffer=False, brought=False) == placement.STALE


class Caller:
    """Stands for a method, and is none."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_an_object_in_the_place_of_a_method_is_named() -> None:
    model: Any = nn.Linear(2, 2)
    assert replaced_methods(model) == []
    model.forward = Caller(model.forward)
    assert replaced_methods(model) == ["Linear.forward, by Caller"]


def finding_of(hint: Hint) -> Finding:
    return Finding("logits", "these", "those", hint)


def test_what_is_inferred_holds_only_where_nothing_else_is_wrong() -> None:
    inferred, seen = finding_of(values.NUMERIC), finding_of(generation.MASK)
    proved, kept = finding_of(sequences.LEAK), finding_of(state.KEPT_ALIVE)

    def left(
        *, parts: bool = False, cell: bool = False, raised: bool = False, changed: bool = False
    ) -> list[Hint | None]:
        findings = [inferred, proved, kept, seen]
        given = grounded(findings, parts=parts, cell=cell, raised=raised, changed=changed)
        return [finding.hint for finding in given]

    assert left() == [values.NUMERIC, sequences.LEAK, state.KEPT_ALIVE, generation.MASK]
    assert left(cell=True) == [None, sequences.LEAK, state.KEPT_ALIVE, generation.MASK]
    assert left(parts=True) == [None, None, state.KEPT_ALIVE, generation.MASK]
    assert left(cell=True, raised=True) == [None, sequences.LEAK, None, generation.MASK]
    assert left(changed=True) == [state.MODEL, state.MODEL, state.KEPT_ALIVE, generation.MASK]


@pytest.mark.parametrize(
    "text",
    [
        "LlamaForCausalLM.__init__() got an unexpected keyword argument 'load_in_4bit'",
        "Qwen2ForCausalLM.__init__() got an unexpected keyword argument 'load_in_8bit'",
    ],
)
def test_arguments_that_transformers_removed_are_named(text: str) -> None:
    from pytest_llmdevice.diagnosis.errors import hint_of

    hint = hint_of(TypeError(text))
    assert hint is not None
    assert hint.name == "load-in-4bit-removed"
    assert hint_of(TypeError("load() got an unexpected keyword argument 'bits'")) is None


def test_the_evidence_of_a_hint_is_plain_data() -> None:
    from pytest_llmdevice.checks.token_causes import Handed, TokenEvidence, cause_of_tokens

    same = Handed((1, 2), (1, 2))
    assert cause_of_tokens(TokenEvidence(same, alone=True)) == generation.BATCH
    assert cause_of_tokens(TokenEvidence(same, alone=False, step=0, logits=True)) == generation.SETTINGS
    assert cause_of_tokens(TokenEvidence(same, alone=False, step=2, logits=False)) == sequences.STEPS
    assert cause_of_tokens(TokenEvidence(same, alone=False, step=0, logits=False)) is None
    assert cause_of_tokens(TokenEvidence(Handed((1, 2), (2,), generation.CUT), alone=True)) == generation.CUT
