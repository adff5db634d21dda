"""The check of what a target hands to its model: right ways to do it pass, each wrong one is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from covering import in_turn
from packaging.version import Version

from pytest_llmdevice import BuiltinTarget, Cell, Result, simulate, zoo
from pytest_llmdevice.checks import check_inputs
from pytest_llmdevice.diagnosis.hints import generation as hints
from pytest_llmdevice.diagnosis.hints.state import TRAINING
from pytest_llmdevice.inference.generation import batch, generate, is_encoder_decoder
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.model.device_map import embedding_device

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Way = Callable[..., Any]

TRANSFORMERS_5 = Version(version("transformers")) >= Version("5")

NEW = 6
PAD = 256
FP32 = Cell("llama", "cpu", "float32")
DECODERS = [family for family in zoo.families() if family != "t5"]
# ALiBi, a recurrent state and relative positions: their forward takes no position_ids.
COUNTING = [family for family in DECODERS if family not in {"bloom", "mamba"}]

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")


def checked(way: Way, model: Any, prompts: Tokens, cell: Cell = FP32) -> Result:
    generated = generate_traced(SimpleNamespace(generate=way), model, prompts, NEW)
    if generated.error is not None:
        raise generated.error
    return check_inputs(generated, prompts, model, cell)


def padded(model: Any, prompts: Tokens, *, left: bool = True, pad: int = PAD) -> dict[str, torch.Tensor]:
    return batch(prompts, pad=pad, device=embedding_device(model), left=left)


def positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def new(model: Any, inputs: dict[str, Any], count: int, **options: Any) -> Tokens:
    given = {"do_sample": False, "max_new_tokens": count, "min_new_tokens": count, "pad_token_id": PAD, **options}
    output = model.generate(**inputs, **given)
    rows: Tokens = output[:, -count:].tolist()
    return rows


# Right ways to do it.


def one_by_one(model: Any, prompts: Tokens, count: int) -> Tokens:
    return [new(model, {"input_ids": torch.tensor([prompt])}, count)[0] for prompt in prompts]


def more_padding(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, [*prompts, [1] * 32])
    return new(model, {name: value[:-1] for name, value in inputs.items()}, count)


def boolean_mask(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    return new(model, {**inputs, "attention_mask": inputs["attention_mask"].bool()}, count)


def float_mask(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    return new(model, {**inputs, "attention_mask": inputs["attention_mask"].float()}, count)


def inferred_mask(model: Any, prompts: Tokens, count: int) -> Tokens:
    return new(model, {"input_ids": padded(model, prompts)["input_ids"]}, count)


def positional(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    output = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
        pad_token_id=PAD,
    )
    rows: Tokens = output[:, -count:].tolist()
    return rows


def named_inputs(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    return new(model, {"inputs": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}, count)


def embedded(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    return new(model, {"inputs_embeds": embeds, **inputs}, count)


def own_positions(model: Any, prompts: Tokens, count: int) -> Tokens:
    inputs = padded(model, prompts)
    return new(model, {**inputs, "position_ids": positions(inputs["attention_mask"])}, count)


def two_beams(model: Any, prompts: Tokens, count: int) -> Tokens:
    return new(model, padded(model, prompts), count, num_beams=2)


def another_pad(model: Any, prompts: Tokens, count: int) -> Tokens:
    return new(model, padded(model, prompts, pad=0), count)


def longest_first(model: Any, prompts: Tokens, count: int) -> Tokens:
    order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
    rows = new(model, padded(model, [prompts[at] for at in order]), count)
    return [rows[order.index(at)] for at in range(len(prompts))]


@torch.inference_mode()
def own_loop(model: Any, prompts: Tokens, count: int, *, masked: bool = True) -> Tokens:
    """A cached loop of one's own."""
    inputs = padded(model, prompts)
    mask, ids, cache = inputs["attention_mask"], inputs["input_ids"], None
    rows = []
    for _ in range(count):
        places = positions(mask)[:, -ids.shape[1] :]
        given = {"attention_mask": mask} if masked else {}
        output = model(ids, position_ids=places, past_key_values=cache, use_cache=True, **given)
        cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        rows.append(ids[:, 0])
    return torch.stack(rows, dim=1).tolist()


@torch.inference_mode()
def own_loop_without_cache(model: Any, prompts: Tokens, count: int, *, masked: bool = True) -> Tokens:
    inputs = padded(model, prompts)
    mask, ids = inputs["attention_mask"], inputs["input_ids"]
    for _ in range(count):
        given = {"attention_mask": mask} if masked else {}
        logits = model(ids, position_ids=positions(mask), use_cache=False, **given).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, -count:].tolist()


@torch.inference_mode()
def one_by_one_loop(model: Any, prompts: Tokens, count: int) -> Tokens:
    rows = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        for _ in range(count):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        rows.append(ids[0, len(prompt) :].tolist())
    return rows


@torch.inference_mode()
def chunked_prefill(model: Any, prompts: Tokens, count: int) -> Tokens:
    rows = []
    for prompt in prompts:
        cache = None
        for at in range(0, len(prompt), 4):
            chunk = torch.tensor([prompt[at : at + 4]])
            places = torch.arange(at, at + chunk.shape[1])[None]
            output = model(chunk, position_ids=places, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
        row = []
        for step in range(count):
            token = output.logits[:, -1:].argmax(-1)
            row.append(int(token))
            output = model(
                token, position_ids=torch.tensor([[len(prompt) + step]]), past_key_values=cache, use_cache=True
            )
        rows.append(row)
    return rows


@torch.inference_mode()
def right_padded_prefill(model: Any, prompts: Tokens, count: int) -> Tokens:
    """Right where the logits are read at each prompt's end, and new tokens take the places of padding."""
    rows = [list(prompt) for prompt in prompts]
    for _ in range(count):
        inputs = padded(model, rows, left=False)
        logits = model(**inputs, use_cache=False).logits
        for at, row in enumerate(rows):
            row.append(int(logits[at, len(row) - 1].argmax()))
    return [row[-count:] for row in rows]


@torch.inference_mode()
def four_dimensions(model: Any, prompts: Tokens, count: int) -> Tokens:
    """A mask that is added, of what each token sees."""
    inputs = padded(model, prompts)
    mask, ids = inputs["attention_mask"].bool(), inputs["input_ids"]
    for _ in range(count):
        width = ids.shape[1]
        seen = torch.ones(width, width, dtype=torch.bool).tril()[None, None] & mask[:, None, None]
        added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        logits = model(ids, attention_mask=added, position_ids=positions(mask), use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, -count:].tolist()


def turn_by_turn(model: Any, prompts: Tokens, count: int) -> Tokens:
    """A cache that is carried from one call of generate to the next."""
    from transformers import DynamicCache

    rows = []
    for prompt in prompts:
        cache, ids = DynamicCache(), torch.tensor([prompt])
        for _ in range(count):
            ids = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                do_sample=False,
                max_new_tokens=1,
                min_new_tokens=1,
                pad_token_id=PAD,
            )
        rows.append(ids[0, len(prompt) :].tolist())
    return rows


def the_class(model: Any, prompts: Tokens, count: int) -> Tokens:
    """Called past what is observed on the instance."""
    inputs = padded(model, prompts)
    output = type(model).generate(
        model, **inputs, do_sample=False, max_new_tokens=count, min_new_tokens=count, pad_token_id=PAD
    )
    rows: Tokens = output[:, -count:].tolist()
    return rows


RIGHT = [
    one_by_one,
    more_padding,
    boolean_mask,
    float_mask,
    inferred_mask,
    positional,
    named_inputs,
    embedded,
    own_positions,
    another_pad,
    longest_first,
    own_loop,
    own_loop_without_cache,
    one_by_one_loop,
    chunked_prefill,
    right_padded_prefill,
    four_dimensions,
    turn_by_turn,
    the_class,
]


@pytest.mark.parametrize(
    ("way", "family"), in_turn(RIGHT, ["llama", "gpt2"]), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_right_way_passes(way: Way, family: str, loaded: Load, prompts: Tokens) -> None:
    model = loaded(Cell(family, "cpu", "float32"))
    result = checked(way, model, prompts)
    assert result.passed, result.message()
    # transformers 4 takes positions for the prompt, and gives them to each new token again.
    if way is not own_positions or TRANSFORMERS_5:
        assert way(model, prompts, NEW) == generate(model, prompts, NEW)


def test_beams_pass(loaded: Load, prompts: Tokens) -> None:
    assert checked(two_beams, loaded(FP32), prompts).passed


def test_a_static_cache_passes(loaded: Load, prompts: Tokens) -> None:
    from transformers import StaticCache

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        cache = StaticCache(config=model.config, max_cache_len=64)
        return new(model, padded(model, prompts), count, past_key_values=cache)

    assert checked(way, loaded(FP32), prompts).passed


@pytest.mark.skipif(not TRANSFORMERS_5, reason="transformers 4 has no shortest length in assisted generation")
def test_assisted_generation_passes(load: Load, loaded: Load, prompts: Tokens) -> None:
    assistant = load(FP32)

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        return [new(model, padded(model, [prompt]), count, assistant_model=assistant)[0][-count:] for prompt in prompts]

    result = checked(way, loaded(FP32), prompts)
    assert result.passed, result.message()


def test_a_pipeline_passes(loaded: Load, checkpoint: Callable[[str], str], prompts: Tokens) -> None:
    from transformers import TextGenerationPipeline

    from pytest_llmdevice.inference.prompts import PROMPT_TEXTS, load_tokenizer

    tokenizer = load_tokenizer(checkpoint("llama"))
    untyped: Any = TextGenerationPipeline
    pipeline = untyped(model=loaded(FP32), tokenizer=tokenizer)

    def way(_: Any, prompts: Tokens, count: int) -> Tokens:
        texts: Any = [tokenizer.decode(prompt) for prompt in prompts]
        output = pipeline(texts, batch_size=len(texts), max_new_tokens=count, do_sample=False, return_full_text=False)
        return [tokenizer(one[0]["generated_text"])["input_ids"] for one in output]

    assert len(prompts) == len(PROMPT_TEXTS)
    result = checked(way, loaded(FP32), prompts)
    assert result.passed, result.message()


def test_an_adapter_passes(load: Load, prompts: Tokens) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(load(FP32), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    result = checked(generate, model, prompts)
    assert result.passed, result.message()
    assert result.evidence["calls"] == 2 + len(prompts)
    unwrapped = checked(lambda wrapped, *rest: generate(wrapped.get_base_model(), *rest), model, prompts)
    assert unwrapped.passed
    assert unwrapped.evidence["calls"] == 2 + len(prompts)


@pytest.mark.parametrize(("family", "strategy"), in_turn(zoo.families(), ["to", "auto", "cpu-offload"]))
def test_the_built_in_target_passes_on_cards(
    family: str, strategy: str, checkpoint: Callable[[str], str], prompts: Tokens
) -> None:
    if family == "mamba" and strategy == "cpu-offload" and not TRANSFORMERS_5:
        pytest.skip("Mamba of transformers 4 reads a weight past the hook that brings it")
    cell = Cell(family, "cuda:0", "bfloat16", strategy=strategy, simulated=True)
    with simulate("cuda:2"):
        model = BuiltinTarget().load(checkpoint(family), cell)
        result = checked(generate, model, prompts, cell)
    assert result.passed, result.message()


# Wrong ones.


def only(result: Result) -> tuple[str, str, str]:
    (finding,) = result.findings
    return finding.where, finding.expected, finding.actual


@pytest.mark.parametrize(("family", "masked"), in_turn(DECODERS, [True, False]))
def test_padding_on_the_right_of_a_decoder_is_found(family: str, masked: bool, loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts, left=False)
        return new(model, inputs if masked else {"input_ids": inputs["input_ids"]}, count)

    result = checked(way, loaded(Cell(family, "cpu", "bfloat16")), prompts, Cell(family, "cpu", "bfloat16"))
    assert only(result) == ("input_ids, row 0", "padding on the left", "padding on the right")
    assert result.findings[0].hint == hints.RIGHT_PADDING


def test_padding_on_the_right_of_embedded_inputs_is_found(loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts, left=False)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        return new(model, {"inputs_embeds": embeds, **inputs}, count)

    assert only(checked(way, loaded(FP32), prompts))[0] == "inputs_embeds, row 0"


def test_an_encoder_takes_padding_on_either_side(loaded: Load, prompts: Tokens) -> None:
    cell = Cell("t5", "cpu", "float32")
    for left in (True, False):
        assert checked(lambda m, p, n, left=left: new(m, padded(m, p, left=left), n), loaded(cell), prompts).passed


@pytest.mark.parametrize("family", zoo.families())
def test_a_mask_of_ones_over_padding_is_found(family: str, loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        return new(model, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}, count)

    result = checked(way, loaded(Cell(family, "cpu", "float32")), prompts)
    assert only(result) == ("attention_mask, row 0", "zeros over its 19 padding tokens", "19 of them attended to")
    assert result.findings[0].hint == hints.MASK


@pytest.mark.parametrize("family", DECODERS)
def test_a_mask_that_cannot_be_inferred_is_missed(family: str, loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        return new(model, {"input_ids": padded(model, prompts, pad=258)["input_ids"]}, count, pad_token_id=258)

    result = checked(way, loaded(Cell(family, "cpu", "float32")), prompts)
    assert only(result) == ("attention_mask", "zeros over the padding (row 0 has 19 padding tokens)", "no mask")


def test_an_encoder_without_a_mask_is_judged_by_what_transformers_makes_of_it(loaded: Load, prompts: Tokens) -> None:
    model = loaded(Cell("t5", "cpu", "float32"))

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        return new(model, {"input_ids": padded(model, prompts, left=False)["input_ids"]}, count)

    # transformers 4 infers it from the padding token, 5 does not.
    right = way(model, prompts, NEW) == generate(model, prompts, NEW)
    assert is_encoder_decoder(model)
    assert checked(way, model, prompts).passed is right


@pytest.mark.parametrize("way", [own_loop, own_loop_without_cache], ids=lambda way: way.__name__)
def test_a_loop_of_ones_own_without_a_mask_is_found(way: Way, loaded: Load, prompts: Tokens) -> None:
    result = checked(lambda m, p, n: way(m, p, n, masked=False), loaded(FP32), prompts)
    assert only(result)[::2] == ("attention_mask", "no mask")


def test_a_mask_that_hides_tokens_is_found(loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        inputs["attention_mask"][:, -2] = 0
        return new(model, inputs, count)

    assert only(checked(way, loaded(FP32), prompts))[2] == "1 of them hidden"


@pytest.mark.parametrize("family", COUNTING)
def test_positions_that_count_padding_are_found(family: str, loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        places = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
        return new(model, {**inputs, "position_ids": places}, count)

    where, expected, actual = only(
        checked(way, loaded(Cell(family, "cpu", "bfloat16")), prompts, Cell(family, "cpu", "bfloat16"))
    )
    assert where == "position_ids, row 0"
    assert (expected, actual) == ("[0, 1, 2, 3, 4] at its tokens", "[19, 20, 21, 22, 23]")


def test_positions_that_start_again_in_a_loop_of_ones_own_are_found(loaded: Load, prompts: Tokens) -> None:
    @torch.inference_mode()
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        mask, ids, cache = inputs["attention_mask"], inputs["input_ids"], None
        for step in range(count):
            places = positions(mask) if step == 0 else torch.zeros_like(ids)
            output = model(ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
            cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        return [[1] * count for _ in prompts]

    result = checked(way, loaded(FP32), prompts)
    assert result.findings[0].where == "position_ids, row 0"
    assert (result.findings[0].expected, result.findings[0].actual) == ("[5] at its tokens", "[0]")


@pytest.mark.parametrize("columns", [-1, 3])
def test_a_mask_of_another_shape_is_found(columns: int, loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        mask = inputs["attention_mask"]
        mask = mask[:, 1:] if columns < 0 else torch.cat([mask, torch.ones_like(mask[:, :columns])], dim=1)
        with torch.inference_mode(), suppress(RuntimeError):
            model(inputs["input_ids"], attention_mask=mask)
        return [[1] * count for _ in prompts]

    assert ("attention_mask", "shape (3, 24)", f"shape (3, {24 + columns})") in [
        (finding.where, finding.expected, finding.actual) for finding in checked(way, loaded(FP32), prompts).findings
    ]


def test_embedded_inputs_of_another_dtype_are_found(loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids")).double()
        with suppress(RuntimeError):
            new(model, {"inputs_embeds": embeds, **inputs}, count)
        return [[1] * count for _ in prompts]

    assert only(checked(way, loaded(FP32), prompts)) == ("inputs_embeds", "float32", "float64")


@pytest.mark.parametrize("where", ["around", "inside"])
def test_autocast_is_found(where: str, load: Load, prompts: Tokens) -> None:
    model = load(FP32)
    if where == "inside":
        forward = model.forward

        def narrowed(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return forward(*args, **kwargs)

        model.forward = narrowed

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        with torch.autocast("cpu", torch.bfloat16, enabled=where == "around"):
            return generate(model, prompts, count)

    (finding,) = checked(way, model, prompts).findings
    assert finding.where.startswith("autocast, first seen at ")
    assert (finding.expected, finding.actual) == ("off", "on, to bfloat16")
    assert finding.hint == hints.AUTOCAST


def test_autocast_of_another_type_of_device_or_to_the_cells_own_dtype_is_no_matter(load: Load, prompts: Tokens) -> None:
    cell = Cell("llama", "cpu", "bfloat16")

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        with torch.autocast("cpu", torch.bfloat16):
            return generate(model, prompts, count)

    assert checked(way, load(cell), prompts, cell).passed


def test_a_cache_that_is_kept_in_half_precision_is_found(loaded: Load, prompts: Tokens) -> None:
    @torch.inference_mode()
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        rows = []
        for prompt in prompts:
            output = model(torch.tensor([prompt]), use_cache=True)
            cache, row = output.past_key_values, []
            for _ in range(count):
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys.bfloat16(), layer.values.bfloat16()
                token = output.logits[:, -1:].argmax(-1)
                row.append(int(token))
                output = model(token, past_key_values=cache, use_cache=True)
            rows.append(row)
        return rows

    findings = checked(way, loaded(FP32), prompts).findings
    assert [finding.where for finding in findings] == [
        f"cache, layer {layer}, {kind}" for layer in (0, 1) for kind in ("keys", "values")
    ]
    assert {(finding.expected, finding.actual) for finding in findings} == {
        ("float32, as the layer computes", "bfloat16")
    }


def test_a_cache_on_another_card_than_its_layer_is_found(checkpoint: Callable[[str], str], prompts: Tokens) -> None:
    cell = Cell("llama", "cuda:0", "float32", simulated=True)

    @torch.inference_mode()
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        ids = torch.tensor(prompts[:1], device="cuda:0")
        cache = model(ids, use_cache=True).past_key_values
        cache.layers[1].keys = cache.layers[1].keys.to("cuda:1")
        with suppress(RuntimeError):
            model(ids[:, -1:], past_key_values=cache, use_cache=True)
        return [[1] * count for _ in prompts]

    with simulate("cuda:2"):
        model = BuiltinTarget().load(checkpoint("llama"), cell)
        result = checked(way, model, prompts, cell)
    assert only(result) == ("cache, layer 1, keys", "device cuda:0", "device cuda:1")
    assert result.findings[0].hint == hints.CACHE


def test_a_target_that_never_calls_the_model_it_is_given_is_found(load: Load, prompts: Tokens) -> None:
    other = load(FP32)
    result = checked(lambda _, p, n: generate(other, p, n), load(FP32), prompts)
    assert only(result) == ("the model that load returned", "a call of it, or of a part of it", "none")


def test_a_compiled_model_is_no_other_one(load: Load, prompts: Tokens) -> None:
    model = load(FP32)
    compiled = torch.compile(model, backend="eager")
    result = checked(lambda _, p, n: one_by_one_loop(compiled, p, n), model, prompts)
    assert result.passed, result.message()
    assert result.evidence["compiled"] == 1


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "position_ids"])
def test_a_tensor_on_another_device_is_named(name: str, checkpoint: Callable[[str], str], prompts: Tokens) -> None:
    cell = Cell("llama", "cuda:1", "float32", simulated=True)

    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        inputs["position_ids"] = positions(inputs["attention_mask"])
        inputs[name] = inputs[name].to("cpu")
        with suppress(RuntimeError):
            new(model, inputs, count)
        return [[1] * count for _ in prompts]

    with simulate("cuda:2"):
        result = checked(way, BuiltinTarget().load(checkpoint("llama"), cell), prompts, cell)
    assert only(result) == (name, "device cuda:1", "device cpu")
    assert result.findings[0].hint == hints.LEFT_BEHIND


def test_ids_that_are_no_integers_are_found(loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, prompts: Tokens, count: int) -> Tokens:
        inputs = padded(model, prompts)
        with suppress(RuntimeError):
            model(inputs["input_ids"].half(), attention_mask=inputs["attention_mask"])
        return [[1] * count for _ in prompts]

    result = checked(way, loaded(FP32), prompts)
    assert ("input_ids", "integers", "floating-point numbers") in [
        (finding.where, finding.expected, finding.actual) for finding in result.findings
    ]


def test_training_mode_while_generating_is_found_though_nothing_shows(loaded: Load, prompts: Tokens) -> None:
    model = loaded(FP32)

    def way(model: Any, given: Tokens, count: int) -> Tokens:
        model.train()
        try:
            return generate(model, given, count)
        finally:
            model.eval()

    (finding,) = checked(way, model, prompts).findings
    assert (finding.where, finding.hint) == ("the model, while the target generates", TRAINING)


def test_a_token_in_front_of_each_prompt_is_found(loaded: Load, prompts: Tokens) -> None:
    def way(model: Any, given: Tokens, count: int) -> Tokens:
        return generate(model, [[257, *prompt] for prompt in given], count)

    (finding,) = checked(way, loaded(FP32), prompts).findings
    assert (finding.where, finding.actual, finding.hint) == ("input_ids", "[257] in front of them", hints.IN_FRONT)


def test_inputs_are_held_to_where_the_model_was_before_it_was_moved(load: Load, prompts: Tokens) -> None:
    def way(model: Any, given: Tokens, count: int) -> Tokens:
        rows = generate(model.to("cuda:1"), given, count)
        model.cpu()
        return rows

    with simulate("cuda:2"):
        model = load(Cell("llama", "cuda:1", "float32", simulated=True))
        generated = generate_traced(SimpleNamespace(generate=way), model, prompts, NEW)
        assert check_inputs(generated, prompts, model).findings == ()
        assert {(one.kind, one.before, one.after) for one in generated.changes} == {("model", "cuda:1", "cpu")}
