"""The bugs of the five systems that this plugin was made for, on simulated cards: each is seen, and each fix passes."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from simulation.loaded_cells import (
    IGNORED_WARNINGS,
    TWO_DEVICES,
    batch,
    load,
    loaded_on_cpu,
    on_cpu,
    places,
    prompts,
    tokenizer,
    tokens,
    tokens_on_cpu,
)
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_dtypes, check_forward, check_placement, check_quantization, check_tied
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.monitoring.trace import Trace
from pytest_llmdevice.monitoring.tracing import traced
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.zoo import family

pytestmark = [pytest.mark.filterwarnings(warning) for warning in IGNORED_WARNINGS]

SHORT: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}


def elsewhere(trace: Trace, model: Any) -> dict[str, set[str]]:
    """What was handed over on another device than the embedding's: `name -> devices`."""
    home = str(embedding_device(model))
    found: dict[str, set[str]] = {}
    for call in trace.outer:
        for name, tensor in call.tensors.items():
            if str(tensor.device) != home:
                found.setdefault(name, set()).add(str(tensor.device))
    return found


def devices_named(error: BaseException) -> set[str]:
    return set(re.findall(r"\bcpu\b|\bcuda:\d", str(error)))


class TestInputsBesideAQuantizedModel:
    """IBench: inputs were moved `if device == "cuda" and not quantized`; the model was on cuda:7, they on the CPU."""

    QUANTIZATIONS = ("int8", "nf4", "nf4-double")

    def cell(self, quantization: str) -> Cell:
        return Cell("qwen3", "cuda:7", "float16", quantization, "device-map", simulated=True)

    @staticmethod
    def unmoved(inputs: dict[str, Any], device: str, *, quantized: bool) -> dict[str, Any]:
        """The bug."""
        if device.startswith("cuda") and not quantized:
            return {name: value.to(device) for name, value in inputs.items()}
        return inputs

    @staticmethod
    def beside_first_parameter(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """The fix, plan A: only tensors move, and nothing where the model has no parameter."""
        try:
            device = next(model.parameters()).device
        except StopIteration:
            return inputs
        return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}

    @pytest.fixture(autouse=True)
    def _bitsandbytes(self) -> None:
        pytest.importorskip("bitsandbytes")
        checkpoint("qwen3")

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_a_forward_pass_raises_and_names_both_devices(self, quantization: str) -> None:
        with simulate("cuda:8"):
            model = load(self.cell(quantization))
            inputs = self.unmoved(batch(), "cuda", quantized=True)
            with traced(model) as trace, pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**inputs)
            left = elsewhere(trace, model)
        # The sentence that IBench's users saw.
        assert "but got index is on cpu, different from other tensors on cuda:7" in str(caught.value)
        assert left == {"input_ids": {"cpu"}, "attention_mask": {"cpu"}}

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_generate_moves_them_silently_and_a_look_at_its_boundary_tells(self, quantization: str) -> None:
        with simulate("cuda:8"):
            model = load(self.cell(quantization))
            inputs = self.unmoved(batch(), "cuda", quantized=True)
            with warnings.catch_warnings(record=True) as said, traced(model) as trace:
                warnings.simplefilter("always")
                result = model.generate(**inputs, **SHORT)
            left, place = elsewhere(trace, model), str(result.device)
        # transformers 5 neither raises nor warns; what it returns is where the inputs were, not where the model is.
        assert [str(warning.message) for warning in said if "device" in str(warning.message)] == []
        assert place == "cpu"
        assert left == {"input_ids": {"cpu"}, "attention_mask": {"cpu"}}

    def test_inputs_on_another_card_are_as_silent(self) -> None:
        with simulate("cuda:8"):
            model = load(self.cell("nf4"))
            with traced(model) as trace:
                result = model.generate(**batch("cuda:0"), **SHORT)
            left, place = elsewhere(trace, model), str(result.device)
        assert place == "cuda:0"
        assert left["input_ids"] == {"cuda:0"}

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_the_fix_passes(self, quantization: str) -> None:
        cell = self.cell(quantization)
        expected = loaded_on_cpu(cell).generate(**batch(), **SHORT)
        with simulate("cuda:8"):
            model = load(cell)
            inputs = self.beside_first_parameter(model, {**batch(), "use_cache": True})
            with traced(model) as trace:
                logits = model(**inputs).logits
                result = model.generate(**inputs, **SHORT)
            left, where = elsewhere(trace, model), {str(logits.device), str(result.device)}
            result = result.cpu()
        assert left == {}
        assert where == {"cuda:7"}
        assert torch.equal(result, expected)

    def test_a_dense_model_never_had_the_bug(self) -> None:
        with simulate("cuda:8"):
            model = load(replace(self.cell("none"), quantization="none"))
            inputs = self.unmoved(batch(), "cuda:7", quantized=False)
            with traced(model) as trace:
                model(**inputs)
            assert elsewhere(trace, model) == {}

    def test_a_model_without_parameters_is_left_alone(self) -> None:
        inputs = {"input_ids": torch.ones(1, 2), "text": "hello"}
        assert self.beside_first_parameter(nn.Module(), inputs) is inputs

    def test_the_first_parameter_is_the_embedding_only_by_luck(self) -> None:
        class Headed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(4, 8, device="cuda:6")
                self.embedding = nn.Embedding(8, 4, device="cuda:7")

            def get_input_embeddings(self) -> nn.Module:
                return self.embedding

            def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = self.head(self.embedding(input_ids).to(self.head.weight.device))
                return result

        with simulate("cuda:8"):
            model, inputs = Headed(), {"input_ids": torch.ones(1, 2, dtype=torch.long)}
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**self.beside_first_parameter(model, inputs))
            model(inputs["input_ids"].to(embedding_device(model)))
        assert devices_named(caught.value) == {"cuda:6", "cuda:7"}


class TestTiedEmbeddingsOnSeveralCards:
    """Qwen1.5-0.5B: inputs on one card and the tied embedding on another after `device_map="auto"`."""

    WHOLE = Cell("qwen2", "cuda:0", "float16", strategy="device-map", simulated=True)
    SPLIT = replace(WHOLE, strategy="split")
    AUTO = replace(WHOLE, strategy="auto")

    @pytest.fixture(autouse=True)
    def _tied(self) -> None:
        assert family("qwen2").tied
        checkpoint("qwen2")

    @pytest.mark.parametrize("cell", [WHOLE, AUTO], ids=str)
    def test_inputs_on_another_card_raise_and_name_both(self, cell: Cell) -> None:
        with simulate("cuda:8"):
            model = load(cell)
            home = str(embedding_device(model))
            wrong = "cuda:7" if home != "cuda:7" else "cuda:6"
            if hasattr(model, "_hf_hook"):
                # accelerate moves what a dispatched model is given; the embedding itself is given what there is.
                assert str(model(**batch(wrong)).logits.device) == wrong
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                nn.functional.embedding(batch(wrong)["input_ids"], model.get_input_embeddings().weight)
        assert devices_named(caught.value) == {wrong, home}

    def test_a_whole_model_has_no_hook_that_moves_anything(self) -> None:
        with simulate("cuda:8"):
            model = load(self.WHOLE)
            with traced(model) as trace, pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**batch("cuda:7"))
            left = elsewhere(trace, model)
        assert devices_named(caught.value) == {"cuda:0", "cuda:7"}
        assert left == {"input_ids": {"cuda:7"}, "attention_mask": {"cuda:7"}}

    def test_inputs_beside_the_embedding_pass(self) -> None:
        expected = tokens_on_cpu(self.WHOLE)
        with simulate("cuda:8"):
            for cell in (self.WHOLE, self.SPLIT, self.AUTO):
                model = load(cell)
                with traced(model) as trace:
                    assert tokens(model) == expected
                    device = model.model.embed_tokens.weight.device
                    model(**{name: value.to(device) for name, value in batch().items()})
                assert elsewhere(trace, model) == {}

    @pytest.mark.parametrize("cell", [SPLIT, AUTO, replace(AUTO, strategy="balanced")], ids=str)
    def test_head_and_embedding_stay_one_tensor_on_one_card(self, cell: Cell) -> None:
        expected = tokens_on_cpu(cell)
        with simulate("cuda:2"):
            model = load(cell)
            plan = expectations_of(model, checkpoint("qwen2"), cell)
            results = [
                check_tied(model, plan),
                check_placement(model, plan, cell),
                check_forward(model, cell, prompts(), checkpoint("qwen2")),
            ]
            head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
            same = head is embedding, head.device == embedding.device
            assert tokens(model) == expected
        assert [result.message() for result in results if not result.passed] == []
        assert same == (True, True)

    def test_a_head_sent_to_another_card_is_no_longer_tied(self) -> None:
        with simulate("cuda:2"):
            model = load(self.WHOLE)
            plan = expectations_of(model, checkpoint("qwen2"), self.WHOLE)
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.to("cuda:1"))
            tied, placed = check_tied(model, plan), check_placement(model, plan, self.WHOLE)
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**batch("cuda:0"))
        assert [finding.where for finding in tied.findings] == ["lm_head.weight"]
        assert [(finding.where, finding.actual) for finding in placed.findings] == [("lm_head.weight", "cuda:1")]
        assert devices_named(caught.value) == {"cuda:0", "cuda:1"}

    def test_a_dispatched_model_is_moved_in_spite_of_its_hooks(self, caplog: pytest.LogCaptureFixture) -> None:
        # The root's hook goes on sending inputs to where the model was.
        with simulate("cuda:2"):
            model = load(self.SPLIT)
            with caplog.at_level(logging.WARNING):
                model.to("cuda:1")
            result = check_placement(model, expectations_of(model, checkpoint("qwen2"), self.SPLIT), self.SPLIT)
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**batch("cuda:1"))
        assert "You shouldn't move a model that is dispatched using accelerate hooks" in caplog.text
        assert {(finding.expected, finding.actual) for finding in result.findings} >= {("cuda:0", "cuda:1")}
        assert devices_named(caught.value) == {"cuda:0", "cuda:1"}

    def test_one_card_alone_cannot_disagree(self) -> None:
        # `CUDA_VISIBLE_DEVICES=7`: the one card that is left is called cuda:0.
        expected = tokens_on_cpu(self.AUTO)
        with simulate("cuda:1"):
            model = load(self.AUTO)
            assert places(model) == {"cuda:0"}
            assert tokens(model) == expected
            with pytest.raises(RuntimeError, match="invalid device ordinal"):
                batch("cuda:7")


class TestWhatElseAModelIsGiven:
    """A mask, positions or a cache left on a wrong device, with input ids where they belong."""

    CELL = Cell("llama", "cuda:1", "float32", strategy="device-map", simulated=True)

    @staticmethod
    def given(device: str, **elsewhere: str) -> dict[str, Any]:
        inputs = batch(device)
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return {name: value.to(elsewhere.get(name, device)) for name, value in inputs.items()}

    @pytest.mark.parametrize("wrong", ["cpu", "cuda:0"])
    @pytest.mark.parametrize("name", ["input_ids", "position_ids"])
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_what_is_left_behind_raises_and_names_both(self, name: str, wrong: str, attention: str) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(replace(self.CELL, attention=attention))
            with traced(model) as trace, pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**self.given("cuda:1", **{name: wrong}))
            left = elsewhere(trace, model)
        assert left == {name: {wrong}}
        assert devices_named(caught.value) == {"cuda:1", wrong}

    @pytest.mark.parametrize("wrong", ["cpu", "cuda:0"])
    @pytest.mark.parametrize("model", ["opt", "mamba"])
    def test_a_mask_left_behind_raises_where_a_model_uses_it_as_it_is(self, model: str, wrong: str) -> None:
        checkpoint(model)
        with simulate("cuda:2"):
            loaded = load(replace(self.CELL, model=model))
            inputs = batch("cuda:1")
            with traced(loaded) as trace, pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                loaded(**{**inputs, "attention_mask": inputs["attention_mask"].to(wrong)})
            left = elsewhere(trace, loaded)
        assert left == {"attention_mask": {wrong}}
        assert devices_named(caught.value) == {"cuda:1", wrong}

    @pytest.mark.parametrize("wrong", ["cpu", "cuda:0"])
    def test_a_mask_left_behind_is_silent_where_transformers_moves_it(self, wrong: str) -> None:
        # `create_causal_mask` (transformers 5) sends it to the embeddings; only a look at the boundary tells.
        full = loaded_on_cpu(self.CELL)(**self.given("cpu")).logits
        with simulate("cuda:2"):
            model = load(self.CELL)
            with traced(model) as trace:
                logits = model(**self.given("cuda:1", attention_mask=wrong)).logits
            left, logits = elsewhere(trace, model), logits.cpu()
        assert left == {"attention_mask": {wrong}}
        assert torch.equal(logits, full)

    @pytest.mark.parametrize("wrong", ["cpu", "cuda:0"])
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_a_finished_mask_left_behind_raises_and_names_both(self, attention: str, wrong: str) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(replace(self.CELL, attention=attention))
            inputs = self.given("cuda:1")
            length = inputs["input_ids"].shape[1]
            inputs["attention_mask"] = torch.zeros(3, 1, length, length, device=wrong)
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**inputs)
            inputs["attention_mask"] = inputs["attention_mask"].to("cuda:1")
            assert str(model(**inputs).logits.device) == "cuda:1"
        assert devices_named(caught.value) == {"cuda:1", wrong}

    def test_everything_beside_the_model_passes(self) -> None:
        full = loaded_on_cpu(self.CELL)(**self.given("cpu")).logits
        with simulate("cuda:2"):
            model = load(self.CELL)
            with traced(model) as trace:
                logits = model(**self.given("cuda:1")).logits
            assert elsewhere(trace, model) == {}
            assert str(logits.device) == "cuda:1"
            logits = logits.cpu()
        assert torch.equal(logits, full)

    def next_token(self, model: Any, cache: Any, length: int, device: str) -> Any:
        token = torch.tensor([[65]] * 3, device=device)
        mask = torch.ones(3, length + 1, dtype=torch.long, device=device)
        return model(token, attention_mask=mask, past_key_values=cache).logits

    @pytest.mark.parametrize("wrong", ["cpu", "cuda:0"])
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_a_cache_left_behind_raises_and_names_both(self, wrong: str, attention: str) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(replace(self.CELL, attention=attention))
            inputs = batch("cuda:1")
            cache = model(**inputs, use_cache=True).past_key_values
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys.to(wrong), layer.values.to(wrong)
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                self.next_token(model, cache, inputs["input_ids"].shape[1], "cuda:1")
            stack = "".join(str(entry.path) for entry in caught.traceback)
        assert devices_named(caught.value) == {wrong, "cuda:1"}
        assert "cache_utils" in stack

    def test_a_cache_moved_with_the_model_passes(self) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(self.CELL)
            inputs = batch("cuda:1")
            cache = model(**inputs, use_cache=True).past_key_values
            expected = self.next_token(model, cache, inputs["input_ids"].shape[1], "cuda:1").cpu()
            cache = model(**inputs, use_cache=True).past_key_values
            model.to("cuda:0")
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys.to("cuda:0"), layer.values.to("cuda:0")
            moved = self.next_token(model, cache, inputs["input_ids"].shape[1], "cuda:0")
            assert str(moved.device) == "cuda:0"
            moved = moved.cpu()
        assert torch.equal(moved, expected)

    def test_a_cache_of_a_split_model_belongs_to_its_layers(self) -> None:
        checkpoint("llama")
        split = replace(self.CELL, device="cuda:0", strategy="split")
        with simulate("cuda:2"):
            model, inputs = load(split), batch("cuda:0")
            cache = model(**inputs, use_cache=True).past_key_values
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys.to("cuda:0"), layer.values.to("cuda:0")
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                self.next_token(model, cache, inputs["input_ids"].shape[1], "cuda:0")
        assert devices_named(caught.value) == {"cuda:0", "cuda:1"}

    def test_a_buffer_left_behind_raises_and_is_found(self) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(self.CELL)
            rotary = model.model.rotary_emb
            rotary.inv_freq = rotary.inv_freq.to("cuda:0")
            result = check_placement(model, expectations_of(model, checkpoint("llama"), self.CELL), self.CELL)
            outcome = None
            try:
                model(**batch("cuda:1"))
            except RuntimeError as error:
                outcome = error
        assert [(it.where, it.actual) for it in result.findings] == [("model.rotary_emb.inv_freq", "cuda:0")]
        # transformers 5 sends the frequencies to where the hidden states are, before it uses them.
        assert outcome is None


class TestInfoLens:
    """One function decides how to load from the device; a prefix's logits do not depend on what follows."""

    @staticmethod
    def decide(device: torch.device, *, force_int8: bool = False) -> Cell:
        if force_int8 and device.type == "mps":
            warnings.warn("MPS does not support INT8; FORCE_INT8 is ignored", stacklevel=2)
            force_int8 = False
        quantization = "int8" if force_int8 else "none"
        if device.type == "cpu":
            return Cell("llama", "cpu", "float32", quantization, "device-map" if force_int8 else "to")
        return Cell("llama", str(device), "float16", quantization, "auto", simulated=True)

    @pytest.mark.parametrize(
        ("machine", "device", "force_int8"),
        [("cuda:2", "cuda:0", False), ("cuda:2", "cuda:0", True), ("mps", "mps", False), ("rocm:2", "cuda:0", True)],
    )
    def test_a_model_is_loaded_as_was_decided(self, machine: str, device: str, force_int8: bool) -> None:
        if force_int8:
            pytest.importorskip("bitsandbytes")
        cell = self.decide(torch.device(device), force_int8=force_int8)
        expected = tokens_on_cpu(cell)
        with simulate(machine):
            model = load(cell)
            plan = expectations_of(model, checkpoint("llama"), cell)
            results = [check_placement(model, plan, cell), check_dtypes(model, plan, cell)]
            results.append(check_quantization(model, plan, cell))
            result = tokens(model)
            footprint = model.get_memory_footprint()
        assert [each.message() for each in results if not each.passed] == []
        assert result == expected
        dense = loaded_on_cpu(replace(cell, quantization="none", dtype="float32")).get_memory_footprint()
        assert footprint < dense * (0.5 if force_int8 else 0.6)

    def test_int8_is_refused_on_mps_with_a_warning(self) -> None:
        with simulate("mps"), pytest.warns(UserWarning, match="MPS does not support INT8"):
            cell = self.decide(torch.device("mps"), force_int8=True)
        assert (cell.quantization, cell.dtype) == ("none", "float16")

    @pytest.mark.parametrize(("machine", "device"), [("cuda:2", "cuda:1"), ("mps", "mps")])
    def test_a_prefix_has_the_logits_of_the_whole(self, machine: str, device: str) -> None:
        checkpoint("llama")
        cell = Cell("llama", device, "float16", strategy="device-map", simulated=True)
        with simulate(machine), torch.inference_mode():
            model = load(cell)
            ids = torch.tensor([prompts()[2]], device=device)
            half = ids.shape[1] // 2
            whole, prefix = model(ids).logits[0, :half], model(ids[:, :half]).logits[0]
            cache, steps = None, []
            for position in range(half):
                output = model(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                steps.append(output.logits[0])
            by_token = torch.cat(steps)
            differences = [(whole - other).abs().max().item() for other in (prefix, by_token)]
            where = {tensor.device.type for tensor in (whole, prefix, by_token)}
        assert max(differences) < 5e-2
        assert where == {device.partition(":")[0]}

    def test_a_summary_of_the_memory_of_a_card(self) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            torch.cuda.reset_peak_memory_stats(1)
            model = load(replace(self.decide(torch.device("cuda:0")), device="cuda:1", strategy="to"))
            weights = sum(parameter.nbytes for parameter in {id(it): it for it in model.parameters()}.values())
            held = torch.cuda.memory_allocated(1)
            tokens(model)
            peak, free = torch.cuda.max_memory_allocated(1), torch.cuda.mem_get_info(1)
            other = torch.cuda.memory_allocated(0)
        assert weights <= held < weights * 1.3
        assert peak > held
        assert free[0] < free[1]
        assert other == 0


class TestExpertsFromSharedMemory:
    """lmp: experts restored from shared memory in float32 although the configuration says bfloat16."""

    CELLS = tuple(
        Cell(model, "cuda:1", dtype, strategy="shared-memory", simulated=True)
        for model in ("mixtral", "deepseek-v3", "qwen3-moe")
        for dtype in ("bfloat16", "float16", "float32")
    )

    @staticmethod
    def experts(model: Any) -> dict[str, Any]:
        return {name: value for name, value in model.named_parameters() if ".experts." in name}

    @pytest.mark.parametrize("cell", CELLS, ids=str)
    def test_experts_are_in_the_dtype_of_the_configuration_on_the_card(self, cell: Cell) -> None:
        expected = tokens_on_cpu(cell)
        with simulate("cuda:2"):
            model = load(cell)
            plan = expectations_of(model, checkpoint(cell.model), cell)
            results = [check_placement(model, plan, cell), check_dtypes(model, plan, cell)]
            found = {(value.dtype, str(value.device)) for value in self.experts(model).values()}
            result = tokens(model)
        assert [each.message() for each in results if not each.passed] == []
        assert found == {(cell.torch_dtype, "cuda:1")}
        assert result == expected

    @pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.dtype == "bfloat16"], ids=str)
    def test_experts_written_as_they_came_are_found(self, cell: Cell) -> None:
        from accelerate.utils import set_module_tensor_to_device

        source = dict(self.experts(loaded_on_cpu(replace(cell, dtype="float32"))))
        with simulate("cuda:2"):
            model = load(cell)
            for name, value in source.items():
                set_module_tensor_to_device(model, name, "cuda:1", value.detach(), dtype=torch.float32)
            result = check_dtypes(model, expectations_of(model, checkpoint(cell.model), cell), cell)
            # Experts in one product have their inputs cast to the weights' dtype (transformers 5): nothing is said.
            silent = model(**batch("cuda:1")).logits.dtype
            model.set_experts_implementation("eager")
            with pytest.raises(RuntimeError, match="expected mat1 and mat2 to have the same dtype"):
                model(**batch("cuda:1"))
            model.set_experts_implementation("grouped_mm")
            # The fix: convert. Unless a dtype is named, accelerate converts to that of the tensor it replaces.
            for name, value in source.items():
                set_module_tensor_to_device(model, name, "cuda:1", value.detach(), dtype=cell.torch_dtype)
            repaired = check_dtypes(model, expectations_of(model, checkpoint(cell.model), cell), cell)
            spoken = tokens(model)
        assert {finding.where for finding in result.findings} == set(source)
        assert {(finding.expected, finding.actual) for finding in result.findings} == {("bfloat16", "float32")}
        assert silent is torch.bfloat16
        assert repaired.passed
        assert spoken == tokens_on_cpu(cell)

    def test_experts_left_on_the_cpu_raise_and_are_found(self) -> None:
        cell = self.CELLS[0]
        checkpoint(cell.model)
        with simulate("cuda:2"):
            model = load(cell)
            layer = model.model.layers[1]
            for name, value in list(layer.named_parameters()):
                if ".experts." in f".{name}":
                    owner, _, key = name.rpartition(".")
                    setattr(layer.get_submodule(owner), key, nn.Parameter(value.cpu()))
            result = check_placement(model, expectations_of(model, checkpoint(cell.model), cell), cell)
            with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
                model(**batch("cuda:1"))
        assert {finding.actual for finding in result.findings} == {"cpu"}
        assert all(".experts." in finding.where for finding in result.findings)
        assert devices_named(caught.value) == {"cpu", "cuda:1"}


class TestHygonDcu:
    """The tutorial's matrix on a DCU, which PyTorch shows as a cuda device with `torch.version.hip` set."""

    CELLS = (
        Cell("llama", "cuda:0", "float16", strategy="auto", kind="rocm", simulated=True),
        Cell("llama", "cuda:0", "bfloat16", strategy="auto", kind="rocm", simulated=True),
        Cell("llama", "cuda:0", "float16", "nf4-double", "auto", kind="rocm", simulated=True),
        Cell("qwen2", "cuda:1", "float16", "nf4-double", "device-map", kind="rocm", simulated=True),
    )

    def test_the_device_check(self) -> None:
        with simulate("rocm-dcu:2"):
            found = (torch.cuda.is_available(), torch.cuda.device_count(), torch.cuda.get_device_name(0))
            hip, kind = torch.version.hip, torch.ones(1, device="cuda").device.type
        assert found == (True, 2, "K100_AI")
        assert hip
        assert kind == "cuda"

    @pytest.mark.parametrize("cell", CELLS, ids=str)
    def test_a_cell_of_the_matrix(self, cell: Cell) -> None:
        if cell.quantization != "none":
            pytest.importorskip("bitsandbytes")
        expected = tokens_on_cpu(cell)
        with simulate("rocm-dcu:2"):
            model = load(cell)
            plan = expectations_of(model, checkpoint(cell.model), cell)
            results = [
                check_placement(model, plan, cell),
                check_dtypes(model, plan, cell),
                check_quantization(model, plan, cell),
                check_forward(model, cell, prompts(), checkpoint(cell.model)),
            ]
            result = tokens(model)
        assert [each.message() for each in results if not each.passed] == []
        assert result == expected

    def test_turns_carry_their_cache(self) -> None:
        cell = self.CELLS[0]
        with simulate("rocm-dcu:2"):
            model = load(cell)
            home = embedding_device(model)
            history = torch.tensor([prompts()[0]], device=home)
            cache = None
            for text in ("Hello", "again"):
                turn = model.generate(
                    history,
                    attention_mask=torch.ones_like(history),
                    past_key_values=cache,
                    return_dict_in_generate=True,
                    **SHORT,
                )
                cache = turn.past_key_values
                more = torch.tensor([tokenizer()(text)["input_ids"]], device=home)
                history = torch.cat([turn.sequences, more], dim=-1)
            fresh = model.generate(
                turn.sequences[:, :-4], attention_mask=torch.ones_like(turn.sequences[:, :-4]), **SHORT
            )
            same = torch.equal(fresh, turn.sequences)
        assert same

    def test_padding_on_the_wrong_side_is_other_text(self) -> None:
        cell = self.CELLS[0]
        expected = tokens_on_cpu(cell)
        longest = max(map(len, prompts()))
        with simulate("rocm-dcu:2"):
            model = load(cell)
            home = embedding_device(model)
            ids = torch.tensor([row + [256] * (longest - len(row)) for row in prompts()], device=home)
            right = model.generate(ids, attention_mask=(ids != 256).long(), **SHORT)[:, longest:].tolist()
        assert right[-1] == expected[-1] or len(prompts()[-1]) < longest
        assert right != expected

    def test_what_is_monitored(self) -> None:
        checkpoint("llama")
        with simulate("rocm-dcu:2"):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            model = load(replace(self.CELLS[0], strategy="device-map"))
            event: Any = torch.cuda.Event
            start, end = event(enable_timing=True), event(enable_timing=True)
            start.record()
            tokens(model)
            end.record()
            torch.cuda.synchronize()
            elapsed = start.elapsed_time(end)
            held, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        assert elapsed > 0
        assert peak > held > 0

    def test_a_card_that_is_too_small_runs_out_of_memory(self) -> None:
        checkpoint("llama")
        with simulate("rocm-dcu:2,memory=64KiB"):
            model = load(on_cpu(self.CELLS[0]))
            with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
                model.to("cuda:0")

    def test_a_device_that_is_not_there(self) -> None:
        with simulate("rocm-dcu:2"), pytest.raises(RuntimeError, match="HIP error: invalid device ordinal"):
            load(replace(self.CELLS[3], device="cuda:2", quantization="none", strategy="to"))
        assert not torch.cuda.is_available()
