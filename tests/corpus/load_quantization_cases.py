"""The cases of `load_quantization`."""

from __future__ import annotations

from functools import partial

from corpus import load_quantization as quantization
from corpus.case import Case
from pytest_llmdevice import Cell


def cell(model: str, quantization: str, dtype: str = "bfloat16", device: str = "cpu") -> Cell:
    return Cell(model, device, dtype, quantization, "device-map", simulated=device != "cpu")


HF = "https://github.com/huggingface"
BNB = "https://github.com/bitsandbytes-foundation/bitsandbytes"

CASES = (
    Case(
        name="quantization-for-cards-only",
        family="quantization",
        source="https://github.com/jina-ai/jerboa/pull/39",
        story="quantization is dropped without a word on everything that is no NVIDIA card",
        buggy=partial(quantization.OnCardsOnly, believes=True),
        fixed=partial(quantization.OnCardsOnly, believes=False),
        cells=(cell("llama", "int8"),),
    ),
    Case(
        name="eight-bits-for-four",
        family="quantization",
        source="https://github.com/hiyouga/LlamaFactory/issues/998",
        story="four bits are asked for, and the model is loaded in eight",
        buggy=partial(quantization.Flags, four=False),
        fixed=partial(quantization.Flags, four=True),
        cells=(cell("qwen3", "nf4"),),
    ),
    Case(
        name="four-bits-of-the-default-type",
        family="quantization",
        source=f"{BNB}/issues/977",
        story="load_in_4bit alone is fp4, and nf4 was asked for",
        buggy=partial(quantization.FourBits, left_out=("bnb_4bit_quant_type",)),
        fixed=quantization.FourBits,
        cells=(cell("llama", "nf4-double", "float16", "cuda:1"),),
        machine="cuda:2",
    ),
    Case(
        name="compute-dtype-by-default",
        family="quantization",
        source=f"{BNB}/issues/1177",
        story="the compute dtype of 4-bit layers is float32 unless it is given",
        buggy=partial(quantization.FourBits, left_out=("bnb_4bit_compute_dtype",)),
        fixed=quantization.FourBits,
        cells=(cell("gpt2", "nf4", "float16"),),
    ),
    Case(
        name="double-quantization-lost",
        family="quantization",
        source="https://github.com/EleutherAI/lm-evaluation-harness/pull/722",
        story="the option for double quantization is not handed on",
        buggy=partial(quantization.FourBits, left_out=("bnb_4bit_use_double_quant",)),
        fixed=quantization.FourBits,
        cells=(cell("opt", "nf4-double"),),
    ),
    Case(
        name="skip-list-without-the-head",
        family="quantization",
        source=f"{HF}/transformers/issues/45674",
        story="a list of modules to skip replaces the default one, and the head is quantized",
        buggy=partial(quantization.Skips, skipped=["vision_tower"]),
        fixed=partial(quantization.Skips, skipped=["vision_tower", "lm_head"]),
        cells=(cell("phi3", "nf4", "float16"),),
    ),
    Case(
        name="skip-list-by-substring",
        family="quantization",
        source="https://github.com/vllm-project/vllm/pull/9887",
        story="the name of what stays dense, gate, is in that of gate_proj too",
        buggy=partial(quantization.KeepsRouters, substring=True),
        fixed=partial(quantization.KeepsRouters, substring=False),
        cells=(cell("mistral", "nf4"),),
    ),
    Case(
        name="eight-bits-kept-in-half",
        family="quantization",
        source="https://github.com/Lightning-AI/lit-llama/issues/121",
        story="8-bit layers are made without has_fp16_weights=False: the class is right and the weights are not",
        buggy=partial(quantization.Eight, told=False),
        fixed=partial(quantization.Eight, told=True),
        cells=(cell("llama", "int8", "float16"),),
    ),
    Case(
        name="head-replaced-too",
        family="quantization",
        source="https://github.com/intel/auto-round/pull/101",
        story="every linear layer is replaced, the head too",
        buggy=partial(quantization.Replaces, excluded=()),
        fixed=partial(quantization.Replaces, excluded=("lm_head",)),
        cells=(cell("qwen3", "nf4"),),
    ),
    Case(
        name="packed-before-it-was-read",
        family="quantization",
        source="https://github.com/vllm-project/vllm/pull/34930",
        story="layers are quantized with their initial values; nothing is wrong with them but the numbers",
        buggy=partial(quantization.ReplacesBeforeReading, excluded=("lm_head",)),
        fixed=partial(quantization.Replaces, excluded=("lm_head",)),
        cells=(cell("llama", "fp4"),),
    ),
    Case(
        name="cast-after-quantization",
        family="quantization",
        source=f"{BNB}/issues/682",
        story="the quantized model is cast as a whole: packed weights survive, all else is in another dtype",
        buggy=partial(quantization.CastsAfterwards, casts=True),
        fixed=partial(quantization.CastsAfterwards, casts=False),
        cells=(cell("qwen2", "int8", "float16"),),
    ),
    Case(
        name="dense-rest-in-float16",
        family="quantization",
        source="https://github.com/intel/ipex-llm/pull/9755",
        story="the dtype reaches the quantized layers, and all others are float16",
        buggy=partial(quantization.DtypeOfTheRest, told=False),
        fixed=partial(quantization.DtypeOfTheRest, told=True),
        cells=(cell("mistral", "nf4"),),
    ),
    Case(
        name="quantization-state-on-the-cpu",
        family="quantization",
        source=f"{BNB}/issues/1791",
        story="packed weights are on the card, and the state that is needed to read them is not",
        buggy=partial(quantization.StateBehind, state_too=False),
        fixed=partial(quantization.StateBehind, state_too=True),
        cells=(cell("llama", "nf4", device="cuda:1"),),
        machine="cuda:2",
    ),
    Case(
        name="prepared-for-training",
        family="quantization",
        source=f"{HF}/peft/issues/816",
        story="what is not quantized is cast to float32, as for training",
        buggy=partial(quantization.Prepared, prepares=True),
        fixed=partial(quantization.Prepared, prepares=False),
        cells=(cell("qwen2", "nf4"),),
        needs="peft",
    ),
    Case(
        name="dequantized-again",
        family="quantization",
        source=f"{HF}/peft/issues/2105",
        story="the weights are brought back to half precision: quantized in name only",
        buggy=partial(quantization.Dequantizes, back=True),
        fixed=partial(quantization.Dequantizes, back=False),
        cells=(cell("llama", "nf4"),),
    ),
)
