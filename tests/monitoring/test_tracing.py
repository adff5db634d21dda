"""What a target hands to a model, seen at the model's boundary and at every module."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import BuiltinTarget, Cell, zoo
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.model.kv_cache import cache_length, layer_tensors
from pytest_llmdevice.monitoring.trace import Call, tensors_in
from pytest_llmdevice.monitoring.tracing import traced
from pytest_llmdevice.simulation import simulate

CPU, CARD = torch.device("cpu"), torch.device("cuda:1")
IDS = torch.tensor([[5, 6, 7]])
MASK = torch.ones(1, 3, dtype=torch.long)


@pytest.fixture
def model() -> Any:
    return BuiltinTarget().load(str(zoo.checkpoint("llama")), Cell("llama", "cpu", "float32"))


def short(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model.generate(*args, max_new_tokens=2, do_sample=False, pad_token_id=0, **kwargs)


def brief(call: Call) -> tuple[str, str, list[str]]:
    return call.function, call.module, list(call.tensors)


def test_what_generate_is_given(model: Any) -> None:
    with traced(model) as trace:
        short(model, IDS, attention_mask=MASK)
    (call,) = trace.outer
    assert brief(call) == ("generate", "", ["inputs", "attention_mask"])
    ids = call.tensors["inputs"]
    assert (ids.device, ids.dtype, ids.shape, ids.integers) == (CPU, torch.int64, (1, 3), True)
    assert ids.values is not None
    assert ids.values.tolist() == IDS.tolist()


def test_what_forward_is_given_by_others_than_generate(model: Any) -> None:
    with traced(model) as trace:
        model(IDS, MASK.float(), use_cache=False)
        model(inputs_embeds=model.get_input_embeddings()(IDS))
    assert [brief(call) for call in trace.outer] == [
        ("forward", "", ["input_ids", "attention_mask"]),
        ("forward", "model.embed_tokens", ["input"]),
        ("forward", "", ["inputs_embeds"]),
    ]
    mask = trace.outer[0].tensors["attention_mask"]
    assert not mask.integers
    assert mask.values is not None
    assert trace.outer[2].tensors["inputs_embeds"].values is None


def test_a_target_that_drives_parts_of_the_model_is_seen(model: Any) -> None:
    with traced(model) as trace:
        model.lm_head(model.model(input_ids=IDS).last_hidden_state)
    assert [brief(call) for call in trace.outer] == [("forward", "model", ["input_ids"])]
    assert trace.modules["lm_head"].calls == 1


def test_what_follows_from_a_call_is_told_apart(model: Any) -> None:
    with traced(model) as trace:
        short(model, IDS, attention_mask=MASK)
        short(model, IDS, attention_mask=MASK)
    inner = [call for call in trace.calls if not call.outer]
    assert [(call.module, call.within) for call in inner] == [
        ("", 1),
        ("model", 1),
        ("model.embed_tokens", 1),
        ("", 2),
        ("model", 2),
        ("model.embed_tokens", 2),
    ]


def test_every_module_is_seen_with_its_inputs_and_outputs(model: Any) -> None:
    with traced(model) as trace:
        short(model, IDS, attention_mask=MASK)
    ran = {name for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)}
    assert set(trace.modules) == ran
    attention = trace.modules["model.layers.0.self_attn"]
    assert attention.calls == 2
    assert attention.finished
    assert attention.inputs["hidden_states"].shape == (1, 3, 64)
    # In a tuple.
    assert attention.inputs["position_embeddings[0]"].dtype == torch.float32
    assert next(iter(attention.outputs.values())).shape == (1, 3, 64)


def test_tensors_in_containers_are_reached() -> None:
    nested = {"a": [IDS, (MASK, {"b": IDS})], "c": 3, "d": None}
    assert [name for name, _ in tensors_in(nested, "x")] == ["x['a'][0]", "x['a'][1][0]", "x['a'][1][1]['b']"]


def test_values_are_a_copy(model: Any) -> None:
    ids = IDS.clone()
    with traced(model) as trace:
        model(ids)
        ids.zero_()
    values = trace.outer[0].tensors["input_ids"].values
    assert values is not None
    assert values.tolist() == [[5, 6, 7]]


def test_the_cache_that_comes_along_is_seen(model: Any) -> None:
    with traced(model) as trace:
        cache = model(IDS, use_cache=True).past_key_values
        model(IDS[:, :1], past_key_values=cache)
    assert [call.past for call in trace.outer] == [0, 3]
    assert set(trace.caches) == {(layer, kind, CPU, torch.float32) for layer in (0, 1) for kind in ("keys", "values")}
    assert not trace.offloaded


def test_caches_of_all_kinds_have_layers_and_a_length() -> None:
    keys, values = torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4)
    old = ((keys, values),)
    both = SimpleNamespace(self_attention_cache=old, cross_attention_cache=None)
    assert [(layer, kind) for layer, kind, _ in layer_tensors(old)] == [(0, "keys"), (0, "values")]
    assert [(layer, kind) for layer, kind, _ in layer_tensors(both)] == [(0, "keys"), (0, "values")]
    assert list(layer_tensors(object())) == []
    assert (cache_length(None), cache_length(()), cache_length(old), cache_length(object())) == (0, 0, 5, None)


def test_autocast_is_seen_where_it_begins(model: Any) -> None:
    inner = model.model.layers[1].forward

    def narrowed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return inner(*args, **kwargs)

    model.model.layers[1].forward = narrowed
    with traced(model) as trace:
        model(IDS)
    assert trace.autocast == {("cpu", torch.bfloat16): "model.layers.1.input_layernorm"}


def test_the_model_is_left_as_it_was(model: Any) -> None:
    def hooks() -> list[int]:
        return [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]

    before = dict(vars(model)), hooks(), dict(model._forward_hooks_always_called)
    with pytest.raises(ValueError, match="input_ids"), traced(model):
        model()
    assert (vars(model), hooks(), dict(model._forward_hooks_always_called)) == before
    with traced(model) as trace:
        pass
    short(model, IDS)
    assert not trace.calls
    assert not trace.modules


def test_after_an_error_inside_the_next_call_is_an_outer_one_again(model: Any) -> None:
    with traced(model) as trace:
        with suppress(RuntimeError):
            model(IDS, attention_mask=torch.ones(2, 7, dtype=torch.long))
        with suppress(IndexError):
            model(torch.tensor([[100000]]))
        model(IDS)
    assert [call.module for call in trace.outer] == ["", "", ""]


def test_a_generate_of_its_own_is_kept(model: Any) -> None:
    def own(*_: Any, **__: Any) -> str:
        return "own"

    model.generate = own
    try:
        with traced(model) as trace:
            assert model.generate(input_ids=IDS) == "own"
        assert model.generate is own
        assert [brief(call) for call in trace.calls] == [("generate", "", ["input_ids"])]
    finally:
        del model.generate


def test_a_module_without_embedding_or_generate_is_observed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with traced(model) as trace:
        model(torch.ones(2, 3))
    assert list(trace.modules) == ["", "0", "1"]
    assert [brief(call) for call in trace.calls] == [("forward", "", ["input"])]


def test_a_compiled_model_runs_unobserved(model: Any) -> None:
    compiled: Any = torch.compile(model, backend="eager")
    expected = model(IDS).logits
    with traced(model) as trace:
        assert torch.allclose(compiled(IDS).logits, expected)
    assert trace.compiled
    assert not trace.modules


def test_warnings_are_noted_and_still_given(model: Any) -> None:
    with warnings.catch_warnings(record=True) as given, traced(model) as trace:
        warnings.simplefilter("always")
        warnings.warn("You are calling .generate() somewhere", UserWarning, stacklevel=1)
        logging.getLogger("transformers.generation").warning("right-padding was detected %d", 1)
    assert trace.warnings == ["You are calling .generate() somewhere", "right-padding was detected 1"]
    assert [str(one.message) for one in given] == ["You are calling .generate() somewhere"]
    assert not [handler for handler in logging.getLogger("transformers").handlers if "Noting" in type(handler).__name__]


@pytest.mark.filterwarnings("ignore:You are calling .generate")
def test_inputs_on_a_card_are_seen_there(model: Any) -> None:
    with simulate("cuda:2"):
        card = model.to(CARD)
        # transformers 4 raises where 5 moves them.
        with suppress(RuntimeError), traced(card) as silent:
            short(card, input_ids=IDS, attention_mask=MASK.to(CARD))
        with traced(card) as right:
            short(card, input_ids=IDS.to(CARD), attention_mask=MASK.to(CARD))
    assert [tensor.device for tensor in silent.outer[0].tensors.values()] == [CPU, CARD]
    assert [tensor.device for tensor in right.outer[0].tensors.values()] == [CARD, CARD]
    values = right.outer[0].tensors["input_ids"].values
    assert values is not None
    assert values.device == CPU
    assert {device for _, _, device, _ in right.caches} == {CARD}


def test_a_dispatched_model_is_seen_before_its_hooks_move_anything() -> None:
    cell = Cell("llama", "cuda:0", "float32", strategy="split", simulated=True)
    with simulate("cuda:2"):
        model: Any = BuiltinTarget().load(str(zoo.checkpoint("llama")), cell)
        with torch.inference_mode(), traced(model) as trace:
            model(IDS, attention_mask=MASK.to("cuda:0"))
        later = trace.modules["model.layers.1"]
    assert trace.outer[0].tensors["input_ids"].device == CPU
    assert later.inputs["hidden_states"].device == torch.device("cuda:0")
    assert next(iter(later.outputs.values())).device == CARD


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_is_seen_once_for_each_call(model: Any) -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    with traced(wrapped) as trace:
        generate(wrapped, [[5, 6, 7]], 2)
    assert [brief(call) for call in trace.outer] == [("generate", "", ["input_ids", "attention_mask"])]
    assert "generate" not in vars(model)


def test_an_error_of_the_target_ends_the_observation(model: Any) -> None:
    def fail(*_: Any) -> Any:
        model(IDS)
        raise ValueError("no")

    found = generate_traced(SimpleNamespace(generate=fail), model, [[1]], 1)
    assert isinstance(found.error, ValueError)
    assert len(found.trace.outer) == 1
    assert not model._forward_pre_hooks
