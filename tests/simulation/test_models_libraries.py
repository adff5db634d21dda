"""What is done with a model besides generating: autocast, training, adapters, accelerate's dispatch, pipelines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from accelerate import (
    Accelerator,
    cpu_offload,
    disk_offload,
    dispatch_model,
    infer_auto_device_map,
    init_empty_weights,
    load_checkpoint_and_dispatch,
)
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_submodules
from checkpoints import checkpoint
from simulation.loaded_cells import (
    IGNORED_WARNINGS,
    TWO_DEVICES,
    batch,
    load,
    loaded_on_cpu,
    on_cpu,
    places,
    tokenizer,
    tokens,
    tokens_on_cpu,
)
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_placement
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation import simulate

pytestmark = [pytest.mark.filterwarnings(warning) for warning in IGNORED_WARNINGS]

LLAMA = Cell("llama", "cuda:1", "float32", strategy="device-map", simulated=True)
SPLIT = Cell("llama", "cuda:0", "float32", strategy="split", simulated=True)
OFFLOADED = replace(LLAMA, strategy="cpu-offload")
QWEN = replace(SPLIT, model="qwen2")

SHORT: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}


def empty(family: str) -> Any:
    config, auto = AutoConfig.from_pretrained(checkpoint(family)), cast("Any", AutoModelForCausalLM)
    with init_empty_weights():
        model = auto.from_config(config)
    model.tie_weights()
    return model


def halves(first: str, second: str) -> dict[str, Any]:
    parts = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), first)
    return {**parts, "model.layers.0": first, "model.layers.1": second}


@pytest.mark.parametrize("cell", [LLAMA, SPLIT, replace(LLAMA, model="gemma3"), replace(LLAMA, model="t5")], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_of_a_card_computes_in_its_dtype(cell: Cell, dtype: torch.dtype) -> None:
    key = {"t5": {"decoder_input_ids": batch()["input_ids"][:, :3]}}.get(cell.model, {})
    full = loaded_on_cpu(cell)(**batch(), **key).logits.detach()
    with simulate("cuda:2"), torch.no_grad():
        model, inputs = load(cell), batch(cell.device)
        inputs |= {name: value.to(cell.device) for name, value in key.items()}
        with torch.autocast("cuda", dtype=dtype):
            lower = model(**inputs).logits
        with torch.autocast("cpu", dtype=dtype):
            untouched = model(**inputs).logits
        found = (lower.dtype, str(lower.device), untouched.dtype)
        lower, untouched = lower.cpu().float(), untouched.cpu()
        kinds = {parameter.dtype for parameter in model.parameters()}
    assert found == (dtype, cell.device, torch.float32)
    assert kinds == {torch.float32}
    assert torch.equal(untouched, full)
    assert not torch.equal(lower, full)
    assert (lower - full).abs().max() < 0.05 * full.abs().max()


def trained(model: Any, inputs: dict[str, Any], options: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """The parameters after two steps, and the losses."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([it for it in model.parameters() if it.requires_grad], lr=1e-2, **(options or {}))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.device == parameter.device, name
        torch.nn.utils.clip_grad_norm_([it for it in model.parameters() if it.requires_grad], 1.0)
        optimizer.step()
        losses.append(loss.detach())
    for parameter, state in optimizer.state.items():
        assert state["exp_avg"].device == parameter.device
    return {"loss": torch.stack(losses), **{name: value.detach() for name, value in model.named_parameters()}}


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"foreach": True}], ids=["default", "loop", "foreach"])
@pytest.mark.parametrize(
    "cell", [LLAMA, SPLIT, QWEN, replace(SPLIT, model="qwen3-moe"), replace(LLAMA, model="gpt2")], ids=str
)
def test_training_steps_on_cards_are_those_on_the_cpu(cell: Cell, options: dict[str, Any]) -> None:
    reference = load(on_cpu(cell)).train()
    expected = trained(reference, batch(), options)
    before = dict(loaded_on_cpu(cell).named_parameters())
    with simulate("cuda:2"):
        model = load(cell).train()
        where = places(model)
        result = trained(model, batch(cell.device), options)
        assert places(model) == where
        found = {name: value.cpu() for name, value in result.items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        assert name == "loss" or not torch.equal(value, before[name]), name


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_gradients_are_the_same(reentrant: bool) -> None:
    expected = trained(load(on_cpu(SPLIT)).train(), batch())
    with simulate("cuda:2"):
        model = load(SPLIT).train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        found = {name: value.cpu() for name, value in trained(model, batch("cuda:0")).items()}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_mixed_precision_training_keeps_gradients_in_full() -> None:
    with simulate("cuda:2"):
        model, inputs = load(LLAMA).train(), batch("cuda:1")
        scaler, optimizer = torch.amp.GradScaler("cuda"), torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.autocast("cuda", dtype=torch.float16):
            output = model(**inputs, labels=inputs["input_ids"])
        scaler.scale(output.loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found = {(str(it.grad.device), it.grad.dtype) for it in model.parameters()}
        scale = scaler.get_scale()
        logits = output.logits.dtype
    assert found == {("cuda:1", torch.float32)}
    assert logits is torch.float16
    assert scale == 2.0**16


def test_labels_left_behind_are_noticed() -> None:
    checkpoint("llama")
    with simulate("cuda:2"):
        model, inputs = load(LLAMA), batch("cuda:1")
        with pytest.raises(RuntimeError, match=TWO_DEVICES):
            torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), batch()["input_ids"].flatten())


class TestAccelerate:
    """Its own ways to a dispatched model, without the strategies of this package."""

    def test_a_checkpoint_is_loaded_and_dispatched(self) -> None:
        expected = tokens_on_cpu(LLAMA)
        with simulate("cuda:2"):
            model = load_checkpoint_and_dispatch(
                empty("llama"), checkpoint("llama"), device_map=halves("cuda:0", "cuda:1")
            ).eval()
            where = {name: str(parameter.device) for name, parameter in model.named_parameters()}
            result = tokens(model)
        assert {name.split(".")[2] for name, place in where.items() if place == "cuda:1"} == {"1"}
        assert set(where.values()) == {"cuda:0", "cuda:1"}
        assert result == expected

    @pytest.mark.parametrize("device_map", [{"": 1}, {"": "cuda:1"}, "sequential"], ids=str)
    def test_a_map_may_name_a_card_in_any_way(self, device_map: Any) -> None:
        expected = tokens_on_cpu(LLAMA)
        with simulate("cuda:2"):
            model = load_checkpoint_and_dispatch(empty("llama"), checkpoint("llama"), device_map=device_map).eval()
            where = places(model)
            result = tokens(model)
        assert where == ({"cuda:0"} if device_map == "sequential" else {"cuda:1"})
        assert result == expected

    def test_a_layer_that_may_be_split_is_split_between_its_summands(self) -> None:
        expected = tokens_on_cpu(LLAMA)
        with simulate("cuda:2"):
            whole = load_checkpoint_and_dispatch(
                empty("llama"), checkpoint("llama"), device_map="auto", no_split_module_classes=["LlamaDecoderLayer"]
            ).eval()
            careless = load_checkpoint_and_dispatch(empty("llama"), checkpoint("llama"), device_map="auto").eval()
            result = tokens(whole)
            with pytest.raises(RuntimeError, match=f"{TWO_DEVICES}, but found at least two devices, cuda:0 and cuda:1"):
                tokens(careless)
        assert result == expected

    def test_a_model_on_the_cpu_is_dispatched_and_brought_back(self) -> None:
        expected = tokens_on_cpu(LLAMA)
        model = load(on_cpu(LLAMA))
        with simulate("cuda:2"):
            dispatch_model(model, halves("cuda:0", "cuda:1"))
            spread, result = places(model), tokens(model)
            with pytest.raises(RuntimeError, match="can't move a model that has some modules offloaded"):
                load(OFFLOADED).to("cuda:1")
            remove_hook_from_submodules(model)
            with pytest.raises(RuntimeError, match=TWO_DEVICES):
                tokens(model)
            model.to("cpu")
            gathered = places(model)
        assert (spread, result, gathered) == ({"cuda:0", "cuda:1"}, expected, {"cpu"})
        assert tokens(model) == expected

    def test_everything_may_wait_on_the_cpu(self) -> None:
        expected = tokens_on_cpu(LLAMA)
        with simulate("cuda:2"):
            model = cpu_offload(load(on_cpu(LLAMA)), execution_device=torch.device("cuda:1"))
            waiting = {str(it.device) for it in model.parameters()}
            # transformers asks the model where it is, and gets the place of what waits.
            with pytest.warns(UserWarning, match="whereas the model is on meta"):
                result = tokens(model)
            computed = str(model(**batch("cuda:1")).logits.device)
        assert (waiting, result, computed) == ({"meta"}, expected, "cuda:1")

    def test_everything_may_wait_on_disk(self, tmp_path: Path) -> None:
        expected = tokens_on_cpu(LLAMA)
        with simulate("cuda:2"):
            model = disk_offload(load(on_cpu(LLAMA)), str(tmp_path), execution_device=torch.device("cuda:1"))
            waiting = {str(it.device) for it in model.parameters()}
            with pytest.warns(UserWarning, match="whereas the model is on meta"):
                result = tokens(model)
        assert (waiting, result) == ({"meta"}, expected)
        assert len(list(tmp_path.iterdir())) > 10

    def test_a_map_is_inferred_from_the_memory_of_the_cards(self) -> None:
        model = empty("llama")
        size = sum(parameter.nbytes for parameter in model.parameters())
        with simulate("cuda:2"):
            small = infer_auto_device_map(
                model, max_memory={0: size // 2, 1: size}, no_split_module_classes=["LlamaDecoderLayer"]
            )
            large = infer_auto_device_map(model, no_split_module_classes=["LlamaDecoderLayer"])
        assert set(small.values()) == {0, 1}
        assert set(large.values()) == {0}

    def test_a_limit_of_memory_decides_where_layers_go(self) -> None:
        expected = tokens_on_cpu(LLAMA)
        limit = sum(parameter.nbytes for parameter in empty("llama").parameters()) * 2 // 3
        with simulate("cuda:2"):
            model: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint("llama"),
                device_map="sequential",
                max_memory={0: limit, 1: "1GiB"},
                dtype="float32",
                attn_implementation="eager",
            )
            found = (set(model.hf_device_map.values()), places(model), tokens(model))
        assert found == ({0, 1}, {"cuda:0", "cuda:1"}, expected)

    def test_a_hook_aligns_what_one_module_is_given(self) -> None:
        with simulate("cuda:2"):
            layer = torch.nn.Linear(4, 4)
            add_hook_to_module(layer, AlignDevicesHook(execution_device="cuda:1", io_same_device=True))
            result = layer(torch.ones(1, 4))
            found = (str(layer.weight.device), str(result.device))
        assert found == ("cuda:1", "cpu")

    def test_an_accelerator_prepares_for_the_first_card(self) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            accelerator = Accelerator()
            model, optimizer = load(on_cpu(LLAMA)).train(), None
            model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
            inputs = batch(str(accelerator.device))
            accelerator.backward(model(**inputs, labels=inputs["input_ids"]).loss)
            optimizer.step()
            where = (str(accelerator.device), places(model))
            accelerator.free_memory()
            accelerator.state._reset_state(reset_partial_state=True)
        assert where in [("cuda", {"cuda:0"}), ("cuda:0", {"cuda:0"})]


class TestPipelines:
    """transformers' own wrapper, which moves inputs itself."""

    PROMPT = "import torch"

    def expected(self) -> str:
        model = loaded_on_cpu(LLAMA)
        ids = torch.tensor([tokenizer()(self.PROMPT)["input_ids"]])
        return str(tokenizer().decode(model.generate(ids, **SHORT)[0]))

    @pytest.mark.parametrize(
        "options",
        [{"device": 1}, {"device": "cuda:1"}, {"device_map": "auto"}],
        ids=["number", "name", "auto"],
    )
    def test_a_pipeline_speaks_on_its_card(self, options: dict[str, Any]) -> None:
        expected = self.expected()
        with simulate("cuda:2"):
            pipeline: Any = transformers.pipeline(
                "text-generation", model=checkpoint("llama"), tokenizer=tokenizer(), dtype="float32", **options
            )
            found = pipeline([self.PROMPT, "Hello"], batch_size=2, **SHORT)
            where, own = places(pipeline.model), str(pipeline.device)
        assert found[0][0]["generated_text"] == expected
        if options.get("device_map") != "auto":
            assert where == {"cuda:1"} == {own}
        else:
            assert where <= {"cuda:0", "cuda:1"}

    def test_a_map_of_one_card_is_undone(self) -> None:
        # transformers 5.23 leaves no `hf_device_map` on a model that is on one device, and its pipelines, which look
        # for one, then move the model to the first card.
        checkpoint("llama")
        with simulate("cuda:2"):
            pipeline: Any = transformers.pipeline(
                "text-generation",
                model=checkpoint("llama"),
                tokenizer=tokenizer(),
                dtype="float32",
                device_map={"": "cuda:1"},
            )
            result = check_placement(pipeline.model, expectations_of(pipeline.model, checkpoint("llama"), LLAMA), LLAMA)
        assert {(finding.expected, finding.actual) for finding in result.findings} == {("cuda:1", "cuda:0")}

    def test_without_a_word_it_takes_the_first_card(self) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            pipeline: Any = transformers.pipeline("text-generation", model=checkpoint("llama"), tokenizer=tokenizer())
            where = places(pipeline.model)
        assert where == {"cuda:0"}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
class TestAdapters:
    """PEFT's LoRA, which makes its tensors after the model was loaded."""

    @pytest.fixture(autouse=True)
    def _peft(self) -> None:
        pytest.importorskip("peft")
        checkpoint("llama")

    def adapted(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(3)
        config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        return get_peft_model(model, config)

    @pytest.mark.parametrize("cell", [LLAMA, SPLIT, replace(SPLIT, dtype="bfloat16")], ids=str)
    def test_an_adapter_is_beside_what_it_adapts(self, cell: Cell) -> None:
        plain = tokens_on_cpu(cell)
        with simulate("cuda:2"):
            model = self.adapted(load(cell)).eval()
            for name, module in model.named_modules():
                if hasattr(module, "lora_A"):
                    near = {it.device for it in module.parameters()}
                    assert near == {module.base_layer.weight.device}, name
            state = {name: value.cpu() for name, value in model.state_dict().items() if "lora_" in name}
            spoken = tokens(model)
            with model.disable_adapter():
                assert tokens(model) == plain
            merged = model.merge_and_unload()
            where = places(merged)
            after = tokens(merged)
        other = self.adapted(load(on_cpu(cell))).eval()
        other.load_state_dict(state, strict=False)
        expected = tokens(other)
        assert where == ({"cuda:1"} if cell is LLAMA else {"cuda:0", "cuda:1"})
        assert spoken == expected != plain
        # In a half precision the sum is rounded before it is multiplied.
        assert after == expected or cell.dtype != "float32"

    def test_an_adapter_is_trained_on_a_4_bit_model(self) -> None:
        pytest.importorskip("bitsandbytes")
        with simulate("cuda:2"):
            model = self.adapted(load(replace(LLAMA, dtype="bfloat16", quantization="nf4")))
            result = trained(model.train(), batch("cuda:1"))
            where = {(str(value.device), "lora_" in name) for name, value in result.items()}
        assert where == {("cuda:1", True), ("cuda:1", False)}

    def test_an_adapter_is_saved_and_loaded_on_another_card(self, tmp_path: Path) -> None:
        from peft import PeftModel

        with simulate("cuda:2"):
            first = self.adapted(load(LLAMA)).eval()
            spoken = tokens(first)
            first.save_pretrained(tmp_path)
            second = PeftModel.from_pretrained(load(replace(LLAMA, device="cuda:0")), str(tmp_path)).eval()
            found = (places(second), tokens(second))
        assert found == ({"cuda:0"}, spoken)


class TestSaving:
    """What is written from a card is read again."""

    @pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
    @pytest.mark.parametrize("cell", [LLAMA, SPLIT, QWEN, OFFLOADED], ids=str)
    def test_a_model_on_cards_is_saved(self, cell: Cell, tmp_path: Path) -> None:
        expected = tokens_on_cpu(cell)
        with simulate("cuda:2"):
            load(cell).save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
        assert tokens(again) == expected

    def test_a_state_is_saved_and_mapped_to_another_card(self, tmp_path: Path) -> None:
        checkpoint("llama")
        with simulate("cuda:2"):
            model = load(LLAMA)
            torch.save(model.state_dict(), tmp_path / "state.pt")
            read = {
                place: {str(it.device) for it in torch.load(tmp_path / "state.pt", map_location=place).values()}
                for place in (None, "cpu", "cuda:0")
            }
        assert read == {None: {"cuda:1"}, "cpu": {"cpu"}, "cuda:0": {"cuda:0"}}

    def test_a_quantized_model_is_saved_and_read_to_another_card(self, tmp_path: Path) -> None:
        pytest.importorskip("bitsandbytes")
        cell = replace(LLAMA, dtype="bfloat16", quantization="nf4")
        expected = tokens_on_cpu(cell)
        with simulate("cuda:2"):
            load(cell).save_pretrained(tmp_path)
            again = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cuda:0"})
            found = (places(again), tokens(again))
        assert found == ({"cuda:0"}, expected)
