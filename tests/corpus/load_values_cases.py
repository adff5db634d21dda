"""The cases of `load_values`."""

from __future__ import annotations

from functools import partial

from corpus import load_values as values
from corpus.case import Case
from pytest_llmdevice import Cell

HF = "https://github.com/huggingface"

CASES = (
    Case(
        name="rotary-frequencies-cast",
        family="values",
        source=f"{HF}/transformers/issues/29496",
        story="the whole model is cast after loading, its rotary frequencies too",
        buggy=partial(values.CastsAll, late=True),
        fixed=partial(values.CastsAll, late=False),
        cells=(Cell("gemma3", "cpu", "float16"),),
    ),
    Case(
        name="rotary-frequencies-rounded",
        family="values",
        source="https://github.com/NVIDIA-NeMo/Automodel/pull/2549",
        story="the frequencies are made float32 again after the cast: the dtype is right and the digits are gone",
        buggy=partial(values.RepairsTooLate, late=True),
        fixed=partial(values.RepairsTooLate, late=False),
        cells=(Cell("qwen2", "cpu", "bfloat16"),),
    ),
    Case(
        name="buffers-never-computed",
        family="values",
        source=f"{HF}/transformers/issues/34234",
        story="the model is made on the meta device and given memory: no file holds the rotary frequencies",
        buggy=partial(values.Materialized, buffers_too=True),
        fixed=partial(values.Materialized, buffers_too=False),
        cells=(Cell("llama", "cpu", "float32"),),
    ),
    Case(
        name="prefix-and-not-strict",
        family="values",
        source="https://github.com/pytorch/examples/issues/1029",
        story="no name of the file fits because of a prefix, and strict=False keeps quiet about it",
        buggy=partial(values.Lenient, strips=False),
        fixed=partial(values.Lenient, strips=True),
        cells=(Cell("mistral", "cpu", "bfloat16"),),
    ),
    Case(
        name="last-group-never-read",
        family="values",
        source="https://github.com/sgl-project/sglang/pull/32279",
        story="a part of the files is left out, and the weights in it keep their initial values",
        buggy=partial(values.InGroups, rounds_up=False),
        fixed=partial(values.InGroups, rounds_up=True),
        cells=(Cell("mamba", "cpu", "float32"),),
    ),
    Case(
        name="square-weight-turned",
        family="values",
        source="https://github.com/AutoGPTQ/AutoGPTQ/pull/139",
        story="weights of Conv1D are turned where the shape allows it: the square ones, which were right",
        buggy=partial(values.Ported, careful=False),
        fixed=partial(values.Ported, careful=True),
        cells=(Cell("gpt2", "cpu", "bfloat16"),),
    ),
    Case(
        name="key-rows-permuted",
        family="values",
        source=f"{HF}/transformers/pull/31788",
        story="rows of the key projection are put back with the number of query heads",
        buggy=partial(values.FromPairs, grouped=False),
        fixed=partial(values.FromPairs, grouped=True),
        cells=(Cell("llama", "cpu", "float16"),),
    ),
    Case(
        name="keys-and-values-exchanged",
        family="values",
        source="https://github.com/vllm-project/vllm/issues/42803",
        story="a fused projection is put together in another order",
        buggy=partial(values.Fused, order="qvk"),
        fixed=partial(values.Fused, order="qkv"),
        cells=(Cell("phi3", "cpu", "bfloat16"),),
    ),
    Case(
        name="tie-lost-in-the-configuration",
        family="values",
        source=f"{HF}/transformers/pull/43429",
        story="the file has no head, the configuration says that none is tied: the head is random",
        buggy=partial(values.Untied, tied=False),
        fixed=partial(values.Untied, tied=True),
        cells=(Cell("opt", "cpu", "bfloat16"),),
    ),
    Case(
        name="rotary-base-by-default",
        family="values",
        source="https://github.com/lyogavin/airllm/pull/369",
        story="the base of the rotary embedding is looked for under another name, and 10000 is taken",
        buggy=partial(values.OwnRotary, reads=False),
        fixed=partial(values.OwnRotary, reads=True),
        cells=(Cell("mixtral", "cpu", "float32"),),
    ),
    Case(
        name="epsilon-of-another-model",
        family="values",
        source="https://github.com/ggml-org/llama.cpp/issues/2373",
        story="the epsilon of the norms is a constant in the loader, and the checkpoint's is another one",
        buggy=partial(values.GuessesSettings, known={"rms_norm_eps": 1e-5}),
        fixed=partial(values.GuessesSettings, known={}),
        cells=(Cell("llama", "cpu", "bfloat16"), Cell("qwen3", "cpu", "float32")),
    ),
    Case(
        name="one-added-twice",
        family="values",
        source="https://github.com/utensils/mold/pull/1078",
        story="Gemma's norms get their 1 from the file and from the model",
        buggy=partial(values.FoldedNorms, unfolds=False),
        fixed=partial(values.FoldedNorms, unfolds=True),
        cells=(Cell("gemma3", "cpu", "bfloat16"),),
    ),
    Case(
        name="gate-and-up-exchanged",
        family="values",
        source="https://github.com/TransformerLensOrg/TransformerLens/pull/1668",
        story="the halves of the experts' fused projection are exchanged",
        buggy=partial(values.Experts, gate_first=False),
        fixed=partial(values.Experts, gate_first=True),
        cells=(Cell("mixtral", "cpu", "bfloat16"),),
    ),
    Case(
        name="head-initialized-again",
        family="values",
        source=f"{HF}/transformers/pull/45079",
        story="the head is taken for a new one and initialized after the weights were read",
        buggy=partial(values.Reinitialized, head_is_new=True),
        fixed=partial(values.Reinitialized, head_is_new=False),
        cells=(Cell("qwen3", "cpu", "bfloat16"),),
    ),
    Case(
        name="layers-of-another-stage",
        family="values",
        source=f"{HF}/transformers/pull/24381",
        story="each stage of a pipeline reads the layers of the first one",
        buggy=partial(values.Stages, offset=False),
        fixed=partial(values.Stages, offset=True),
        cells=(Cell("mistral", "cpu", "float32"),),
    ),
)
