"""Ways to generate, each on simulated cards and on the CPU: the same values, beside the inputs they came from."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
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
    prompts,
    tokenizer,
)
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)

from pytest_llmdevice import Cell
from pytest_llmdevice.simulation import simulate

Way = Callable[[Any, dict[str, Any]], Any]

pytestmark = [pytest.mark.filterwarnings(warning) for warning in IGNORED_WARNINGS]

LENGTH = {"max_new_tokens": 6, "min_new_tokens": 6}
GREEDY: dict[str, Any] = {"do_sample": False, **LENGTH}
SEED = 7


@dataclass
class Favour(LogitsProcessor):
    """Adds to the logits what a caller holds on a device."""

    bonus: torch.Tensor

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + self.bonus.to(scores.dtype)


@dataclass
class StopAt(StoppingCriteria):
    """Stops a row whose last token is one of those that a caller holds on a device."""

    tokens: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.isin(input_ids[:, -1], self.tokens)


def bonus(inputs: dict[str, Any]) -> torch.Tensor:
    return torch.arange(320, device=inputs["input_ids"].device) % 7 * 0.5


def sampled(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
    torch.manual_seed(SEED)
    return model.generate(**inputs, do_sample=True, temperature=4.0, **LENGTH, **options)


def step_by_step(model: Any, inputs: dict[str, Any]) -> Any:
    """A greedy loop by hand: whole prompt, then one token at a time with the cache."""
    mask, ids, cache = inputs["attention_mask"], inputs["input_ids"], None
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = []
    for _ in range(5):
        with torch.no_grad():
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
        cache = output.past_key_values
        ids = output.logits[:, -1:].argmax(-1)
        found.append(ids)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
        positions = positions[:, -1:] + 1
    return torch.cat(found, dim=-1)


def with_cache_of_the_caller(model: Any, inputs: dict[str, Any]) -> Any:
    cache: Any = DynamicCache(config=model.config)
    result = model.generate(**inputs, **GREEDY, past_key_values=cache)
    kept = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return result, [tensor.float().sum().to(result.device) for tensor in kept]


def with_static_cache_of_the_caller(model: Any, inputs: dict[str, Any]) -> Any:
    cache = StaticCache(config=model.config, max_cache_len=64)
    return model.generate(**inputs, **GREEDY, past_key_values=cache, disable_compile=True)


def two_turns(model: Any, inputs: dict[str, Any]) -> Any:
    """The second turn continues from what the first has left."""
    first = {name: value[:1] for name, value in inputs.items()}
    turn = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    more = torch.tensor([[72, 101, 108]], device=turn.sequences.device)
    ids = torch.cat([turn.sequences, more], dim=-1)
    mask = torch.cat([first["attention_mask"], ids.new_ones((1, ids.shape[1] - first["attention_mask"].shape[1]))], -1)
    return model.generate(input_ids=ids, attention_mask=mask, past_key_values=turn.past_key_values, **GREEDY)


def one_long_turn(model: Any, inputs: dict[str, Any]) -> Any:
    first = {name: value[:1] for name, value in inputs.items()}
    answer = model.generate(**first, **GREEDY)
    ids = torch.cat([answer, torch.tensor([[72, 101, 108]], device=answer.device)], dim=-1)
    mask = torch.cat([first["attention_mask"], ids.new_ones((1, ids.shape[1] - first["attention_mask"].shape[1]))], -1)
    return model.generate(input_ids=ids, attention_mask=mask, **GREEDY)


def with_processors(model: Any, inputs: dict[str, Any]) -> Any:
    device = inputs["input_ids"].device
    return model.generate(
        **inputs,
        **GREEDY,
        logits_processor=LogitsProcessorList([Favour(bonus(inputs))]),
        stopping_criteria=StoppingCriteriaList([StopAt(torch.tensor([101, 102], device=device))]),
        bad_words_ids=[[97], [98, 99]],
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
    )


def from_embeddings(model: Any, inputs: dict[str, Any]) -> Any:
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    return model.generate(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], **GREEDY)


def assisted(model: Any, inputs: dict[str, Any]) -> Any:
    one = {name: value[2:3] for name, value in inputs.items()}
    return model.generate(**one, **GREEDY, assistant_model=copy.deepcopy(model))


def looked_up(model: Any, inputs: dict[str, Any]) -> Any:
    one = {name: value[2:3] for name, value in inputs.items()}
    return model.generate(**one, **GREEDY, prompt_lookup_num_tokens=3)


def with_everything_returned(model: Any, inputs: dict[str, Any]) -> Any:
    output = model.generate(
        **inputs,
        **GREEDY,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
        output_attentions=True,
    )
    transitions = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    device = output.sequences.device
    # On a split model the states of a layer are on the layer's card.
    states = [tensor.to(device) for step in (*output.hidden_states, *output.attentions) for tensor in step]
    return output.sequences, list(output.scores), list(output.logits), transitions, states


def beams_with_scores(model: Any, inputs: dict[str, Any]) -> Any:
    output = model.generate(
        **inputs, **GREEDY, num_beams=3, num_return_sequences=2, return_dict_in_generate=True, output_scores=True
    )
    return output.sequences, output.sequences_scores, output.beam_indices, list(output.scores)


WAYS: dict[str, Way] = {
    "greedy": lambda model, inputs: model.generate(**inputs, **GREEDY),
    "beams": lambda model, inputs: model.generate(**inputs, **GREEDY, num_beams=3, length_penalty=0.5),
    "beams with scores": beams_with_scores,
    "sampled beams": lambda model, inputs: sampled(model, inputs, num_beams=2),
    "sampled": sampled,
    "sampled from the best": lambda model, inputs: sampled(model, inputs, top_k=20, top_p=0.9, typical_p=0.9),
    "several of each": lambda model, inputs: sampled(model, inputs, num_return_sequences=3, min_p=0.01),
    "without a cache": lambda model, inputs: model.generate(**inputs, **GREEDY, use_cache=False),
    "static cache": lambda model, inputs: model.generate(
        **inputs, **GREEDY, cache_implementation="static", disable_compile=True
    ),
    # On a card transformers compiles the decoding step; what is compiled runs as it is in a simulation.
    "compiled": lambda model, inputs: model.generate(**inputs, **GREEDY, cache_implementation="static"),
    "the caller's cache": with_cache_of_the_caller,
    "the caller's static cache": with_static_cache_of_the_caller,
    "two turns": two_turns,
    "prefill in chunks": lambda model, inputs: model.generate(**inputs, **GREEDY, prefill_chunk_size=8),
    "processors and criteria": with_processors,
    "guided": lambda model, inputs: model.generate(**inputs, **GREEDY, guidance_scale=1.5),
    "embeddings": from_embeddings,
    "assisted": assisted,
    "prompt lookup": looked_up,
    "everything returned": with_everything_returned,
    "step by step": step_by_step,
}


def flat(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    else:
        for part in result:
            yield from flat(part)


@cache
def on_the_cpu(cell: Cell, way: Way) -> list[torch.Tensor]:
    return list(flat(way(loaded_on_cpu(cell), batch())))


def disagreements(cell: Cell, way: Way, reference: Way | None = None) -> list[str]:
    """What is different on the cards: values (which the same kernels compute), or the device of a result."""
    expected = on_the_cpu(on_cpu(cell), reference or way)
    with simulate("cuda:2"):
        found = list(flat(way(load(cell), batch(cell.device))))
        places = [str(tensor.device) for tensor in found]
        # What is compared are CPU tensors.
        found = [tensor.cpu() for tensor in found]
    assert found
    assert len(found) == len(expected)
    wrong = [f"{number}: on {place}" for number, place in enumerate(places) if place != cell.device]
    return wrong + [
        f"{number}: {one} is not {other}"
        for number, (one, other) in enumerate(zip(found, expected, strict=True))
        if not torch.equal(one, other)
    ]


def whole(model: str, dtype: str = "float32", quantization: str = "none") -> Cell:
    return Cell(model, "cuda:1", dtype, quantization, "device-map", simulated=True)


def split(model: str, dtype: str = "float32") -> Cell:
    return Cell(model, "cuda:0", dtype, strategy="split", simulated=True)


@pytest.mark.parametrize("cell", [whole("llama"), split("llama", "bfloat16")], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_a_way_to_generate_gives_what_the_cpu_gives(way: str, cell: Cell) -> None:
    assert disagreements(cell, WAYS[way]) == []


@pytest.mark.parametrize("way", ["beams", "sampled", "static cache", "without a cache", "step by step"])
@pytest.mark.parametrize(
    "cell",
    [
        split("qwen2"),
        split("mistral", "float16"),
        split("gemma3"),
        whole("gpt2", "float16"),
        split("opt"),
        split("qwen3-moe", "bfloat16"),
        split("deepseek-v3"),
        whole("llama", "bfloat16", "nf4-double"),
        whole("gemma3", "float16", "int8"),
    ],
    ids=str,
)
def test_a_way_to_generate_with_another_architecture(way: str, cell: Cell) -> None:
    if cell.quantization != "none":
        pytest.importorskip("bitsandbytes")
    assert disagreements(cell, WAYS[way]) == []


@pytest.mark.parametrize("cell", [whole("mamba"), split("mamba"), split("bloom", "bfloat16")], ids=str)
@pytest.mark.parametrize("way", ["beams", "sampled"])
def test_a_way_to_generate_with_a_state_or_without_positions(way: str, cell: Cell) -> None:
    assert disagreements(cell, WAYS[way]) == []


@pytest.mark.parametrize("cell", [whole("t5", "float16"), split("t5")], ids=str)
@pytest.mark.parametrize(
    "way", ["greedy", "beams with scores", "sampled", "without a cache", "processors and criteria"]
)
def test_a_way_to_generate_with_an_encoder(way: str, cell: Cell) -> None:
    assert disagreements(cell, WAYS[way]) == []


@pytest.mark.parametrize("cell", [whole("t5"), split("t5", "bfloat16")], ids=str)
def test_an_encoders_output_may_be_computed_before(cell: Cell) -> None:
    def way(model: Any, inputs: dict[str, Any]) -> Any:
        encoded = model.get_encoder()(**inputs)
        return model.generate(encoder_outputs=encoded, attention_mask=inputs["attention_mask"], **GREEDY)

    assert disagreements(cell, way, WAYS["greedy"]) == []


@pytest.mark.parametrize("cell", [whole("llama"), split("qwen2", "bfloat16"), whole("gemma3")], ids=str)
@pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
def test_an_offloaded_cache_gives_what_any_cache_gives(implementation: str, cell: Cell) -> None:
    # It needs streams, which a CPU has not: the reference is a cache that stays where it is.
    def way(model: Any, inputs: dict[str, Any]) -> Any:
        return model.generate(**inputs, **GREEDY, cache_implementation=implementation, disable_compile=True)

    assert disagreements(cell, way, WAYS["greedy"]) == []


@pytest.mark.parametrize("cell", [whole("llama"), split("llama", "bfloat16")], ids=str)
def test_a_second_turn_continues_the_first(cell: Cell) -> None:
    assert disagreements(cell, two_turns, one_long_turn) == []


@pytest.mark.parametrize("cell", [whole("llama"), split("gemma3")], ids=str)
def test_a_padded_batch_gives_what_each_prompt_gives_alone(cell: Cell) -> None:
    def one_by_one(model: Any, inputs: dict[str, Any]) -> Any:
        rows = []
        for prompt in prompts():
            ids = torch.tensor([prompt], device=inputs["input_ids"].device)
            rows.append(model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)[:, len(prompt) :])
        return torch.cat(rows)

    def padded(model: Any, inputs: dict[str, Any]) -> Any:
        return model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]

    assert disagreements(cell, one_by_one, padded) == []


@pytest.mark.parametrize("cell", [whole("llama"), split("mistral"), whole("deepseek-v3"), split("mamba")], ids=str)
def test_one_token_at_a_time_gives_the_logits_of_the_whole(cell: Cell) -> None:
    ids = torch.tensor([prompts()[2]])
    checkpoint(cell.model)
    with simulate("cuda:2"), torch.no_grad():
        model = load(cell)
        ids = ids.to(cell.device)
        at_once = model(ids).logits
        key = "cache_params" if cell.model == "mamba" else "past_key_values"
        cache, steps = None, []
        for position in range(ids.shape[1]):
            output = model(ids[:, position : position + 1], **{key: cache}, use_cache=True)
            cache = output[key]
            steps.append(output.logits)
        one_by_one = torch.cat(steps, dim=1)
        places = {str(one_by_one.device), str(at_once.device)}
        difference = (one_by_one - at_once).abs().max().item()
    assert places == {cell.device}
    assert difference < 1e-4


@pytest.mark.parametrize("implementation", ["dynamic", "static", "offloaded"])
def test_a_cache_is_on_the_card_of_its_layer(implementation: str) -> None:
    checkpoint("llama")
    with simulate("cuda:2"):
        output = load(split("llama")).generate(
            **batch("cuda:0"), **GREEDY, cache_implementation=implementation, return_dict_in_generate=True
        )
        layers = output.past_key_values.layers
        places = [(str(layer.keys.device), str(layer.values.device)) for layer in layers]
        lengths = {int(layer.get_seq_length()) for layer in layers}
    # An offloaded layer waits on the CPU, all but the one that is next.
    expected = {"offloaded": [("cuda:0", "cuda:0"), ("cpu", "cpu")]}
    assert places == expected.get(implementation, [("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")])
    assert lengths == {batch()["input_ids"].shape[1] + 5}


def test_a_cache_in_8_bit_floats_is_on_the_card() -> None:
    checkpoint("llama")
    options = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    expected = on_the_cpu(on_cpu(whole("llama")), WAYS["greedy"])[0]
    plain = loaded_on_cpu(whole("llama")).generate(**batch(), **GREEDY, **options)
    with simulate("cuda:2"):
        output = load(whole("llama")).generate(**batch("cuda:1"), **GREEDY, **options, return_dict_in_generate=True)
        layer: Any = output.past_key_values.layers[0]
        stored = layer._quantized_keys[0]
        found = (str(stored.device), stored.dtype, str(output.sequences.device))
        sequences = output.sequences.cpu()
    assert found == ("cuda:1", torch.float8_e4m3fn, "cuda:1")
    assert torch.equal(sequences, plain)
    assert sequences.shape == expected.shape


def test_random_numbers_of_a_card_choose_its_tokens() -> None:
    checkpoint("llama")

    def draw(logits: torch.Tensor, generator: torch.Generator) -> list[int]:
        drawn = torch.multinomial((logits / 4).softmax(-1), 8, replacement=True, generator=generator)
        assert drawn.device == logits.device
        return [int(token) for token in drawn.flatten()]

    with simulate("cuda:2"):
        logits = load(whole("llama"))(**batch("cuda:1")).logits[:, -1].detach()
        first, again, other = (
            draw(logits, torch.Generator(device="cuda:1").manual_seed(seed)) for seed in (SEED, SEED, SEED + 1)
        )
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            draw(logits, torch.Generator().manual_seed(SEED))
    assert first == again != other


def test_seeding_all_cards_repeats_what_was_sampled() -> None:
    checkpoint("llama")
    with simulate("cuda:2"):
        model, inputs = load(whole("llama")), batch("cuda:1")
        options = {"do_sample": True, "temperature": 8.0, **LENGTH}
        torch.cuda.manual_seed_all(SEED)
        first = model.generate(**inputs, **options)
        # The random numbers of the CPU and of the other card have no part in it.
        torch.rand(5)
        torch.rand(5, device="cuda:0")
        second = model.generate(**inputs, **options)
        torch.cuda.manual_seed_all(SEED)
        repeated = model.generate(**inputs, **options)
        outcome = torch.equal(first, repeated), torch.equal(first, second)
    assert outcome == (True, False)


def test_text_is_streamed_while_it_is_generated(capsys: pytest.CaptureFixture[str]) -> None:
    prompt = torch.tensor([prompts()[0]])
    text = tokenizer().decode(loaded_on_cpu(whole("llama")).generate(prompt, **GREEDY)[0, prompt.shape[1] :])
    with simulate("cuda:2"):
        streamer = TextStreamer(tokenizer(), skip_prompt=True)
        load(whole("llama")).generate(prompt.to("cuda:1"), **GREEDY, streamer=streamer)
    assert capsys.readouterr().out.strip() == text.strip()


@pytest.mark.parametrize("cell", [whole("llama"), split("llama")], ids=str)
def test_text_is_streamed_from_a_thread(cell: Cell) -> None:
    prompt = torch.tensor([prompts()[0]])
    text = tokenizer().decode(loaded_on_cpu(cell).generate(prompt, **GREEDY)[0, prompt.shape[1] :])
    results: list[torch.Tensor] = []
    with simulate("cuda:2"):
        model = load(cell)
        streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=30)
        ids = prompt.to(cell.device)
        thread = threading.Thread(
            target=lambda: results.append(model.generate(ids, **GREEDY, streamer=streamer)), daemon=True
        )
        thread.start()
        streamed = "".join(streamer)
        thread.join(30)
        places = [str(result.device) for result in results]
    assert streamed == text
    assert places == [cell.device]


def test_several_threads_generate_at_once() -> None:
    prompt = torch.tensor([prompts()[2]])
    expected = loaded_on_cpu(whole("llama")).generate(prompt, **GREEDY)
    with simulate("cuda:2"), ThreadPoolExecutor(4) as pool:
        models = {f"cuda:{index}": load(replace(whole("llama"), device=f"cuda:{index}")) for index in range(2)}
        jobs = [
            (device, pool.submit(lambda device: models[device].generate(prompt.to(device), **GREEDY), device))
            for device in ("cuda:0", "cuda:1") * 4
        ]
        results = [(device, job.result(60)) for device, job in jobs]
        places = [(device, str(result.device)) for device, result in results]
        same = [torch.equal(result.cpu(), expected) for _, result in results]
    assert all(device == place for device, place in places)
    assert all(same)
    assert len(same) == 8


def test_the_assistant_may_be_on_another_card_than_the_model() -> None:
    checkpoint("qwen2")
    prompt = torch.tensor([prompts()[2]])
    options = {"do_sample": False, "max_new_tokens": 6}
    expected = loaded_on_cpu(whole("llama")).generate(prompt, **options)
    with simulate("cuda:2"):
        model, assistant = load(whole("llama")), load(replace(whole("qwen2"), device="cuda:0"))
        result = model.generate(prompt.to("cuda:1"), **options, assistant_model=assistant)
        place, result = str(result.device), result.cpu()
        # transformers 5.23 hands the model's processors to the assistant, with their tensors (transformers#35099).
        with pytest.raises(RuntimeError, match=TWO_DEVICES) as caught:
            model.generate(prompt.to("cuda:1"), **options, min_new_tokens=6, assistant_model=assistant)
    assert place == "cuda:1"
    assert torch.equal(result, expected)
    assert "cuda:0" in str(caught.value)
    assert "cuda:1" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.1}, {"penalty_alpha": 0.6, "top_k": 4}],
    ids=["beams in groups", "contrastive"],
)
def test_ways_that_transformers_no_longer_ships_say_so(options: dict[str, Any]) -> None:
    # They are code on the hub since 4.57; nothing about devices can be learned from them here.
    checkpoint("llama")
    with simulate("cuda:2"), pytest.raises(ValueError, match="requires `trust_remote_code=True`"):
        load(whole("llama")).generate(**batch("cuda:1"), **LENGTH, **options)


def test_a_processor_whose_tensor_is_left_behind_is_noticed() -> None:
    checkpoint("llama")
    with simulate("cuda:2"), pytest.raises(RuntimeError, match=TWO_DEVICES):
        load(whole("llama")).generate(
            **batch("cuda:1"), **GREEDY, logits_processor=LogitsProcessorList([Favour(bonus(batch()))])
        )


def test_a_criterion_whose_tensor_is_left_behind_is_noticed() -> None:
    checkpoint("llama")
    with simulate("cuda:2"), pytest.raises(RuntimeError, match=TWO_DEVICES):
        load(whole("llama")).generate(
            **batch("cuda:1"), **GREEDY, stopping_criteria=StoppingCriteriaList([StopAt(torch.tensor([1, 2]))])
        )
