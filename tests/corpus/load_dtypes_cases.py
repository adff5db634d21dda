"""The cases of `load_dtypes`."""

from __future__ import annotations

from functools import partial

import torch

from corpus import load_dtypes as dtypes
from corpus.case import Case
from pytest_llmdevice import Cell

HF = "https://github.com/huggingface"

CASES = (
    Case(
        name="dtype-never-handed-on",
        family="dtype",
        source=f"{HF}/transformers/issues/24774",
        story="the loader takes a dtype and does not give it to from_pretrained: everything is float32",
        buggy=dtypes.DropsDtype,
        fixed=dtypes.HandsDtypeOn,
        cells=(Cell("gpt2", "cpu", "float16"),),
    ),
    Case(
        name="always-half",
        family="dtype",
        source="https://github.com/allenai/open-instruct/pull/39",
        story="half precision is the default of the loader, whatever dtype was asked for",
        buggy=partial(dtypes.Policy, half=True),
        fixed=dtypes.Policy,
        cells=(Cell("mistral", "cpu", "bfloat16"), Cell("opt", "cpu", "float32")),
    ),
    Case(
        name="torch-dtype-after-the-rename",
        family="dtype",
        source="https://github.com/billy-enrizky/openbrowser-ai/pull/38",
        story="a list of known arguments still has torch_dtype, and drops dtype",
        buggy=dtypes.Engine,
        fixed=dtypes.EngineAfterTheRename,
        cells=(Cell("qwen3", "cpu", "bfloat16", strategy="device-map"),),
    ),
    Case(
        name="float32-on-every-cpu",
        family="dtype",
        source="https://github.com/meta-llama/llama/pull/1403",
        story="half precision is replaced by float32 wherever there is no card",
        buggy=partial(dtypes.Chat, knows_best=True),
        fixed=partial(dtypes.Chat, knows_best=False),
        cells=(Cell("phi3", "cpu", "bfloat16"),),
    ),
    Case(
        name="dtype-popped-from-the-options",
        family="dtype",
        source=f"{HF}/transformers/issues/23357",
        story="the dtype is taken out of the options on the way, and the rest of them is handed on",
        buggy=partial(dtypes.Registry, pops=True),
        fixed=partial(dtypes.Registry, pops=False),
        cells=(Cell("mamba", "cpu", "bfloat16"),),
    ),
    Case(
        name="norms-left-in-float32",
        family="dtype",
        source=f"{HF}/trl/pull/4457",
        story="normalization layers were cast to float32 for training, and the model is served as it is",
        buggy=partial(dtypes.Tuned, upcast=("norm",), undo=False),
        fixed=partial(dtypes.Tuned, upcast=("norm",), undo=True),
        cells=(Cell("gemma3", "cpu", "bfloat16"),),
    ),
    Case(
        name="norm-and-head-in-float32",
        family="dtype",
        source=f"{HF}/peft/issues/816",
        story="the last norm and the head are float32: nothing raises, the logits just become float32",
        buggy=partial(dtypes.Tuned, upcast=("model.norm", "lm_head"), undo=False),
        fixed=partial(dtypes.Tuned, upcast=("model.norm", "lm_head"), undo=True),
        cells=(Cell("llama", "cpu", "bfloat16"),),
    ),
    Case(
        name="router-without-dtype",
        family="dtype",
        source="https://github.com/NVIDIA/Megatron-LM/pull/669",
        story="the routers of the experts are made without a dtype; DeepSeek's computes in float32 and hides it",
        buggy=partial(dtypes.Routers, cast=False),
        fixed=partial(dtypes.Routers, cast=True),
        cells=(Cell("deepseek-v3", "cpu", "bfloat16"),),
    ),
    Case(
        name="experts-written-as-stored",
        family="dtype",
        source=f"{HF}/transformers/issues/33780",
        story="weights that come from elsewhere in float32 are written into a bfloat16 model without a cast",
        buggy=partial(dtypes.SharedExperts, cast=False),
        fixed=partial(dtypes.SharedExperts, cast=True),
        cells=(Cell("mixtral", "cpu", "bfloat16"),),
    ),
    Case(
        name="grown-head-in-float32",
        family="dtype",
        source=f"{HF}/transformers/pull/14181",
        story="the head of a padded vocabulary is a new layer, and a new layer is float32",
        buggy=partial(dtypes.PaddedVocabulary, keeps=False),
        fixed=partial(dtypes.PaddedVocabulary, keeps=True),
        cells=(Cell("mistral", "cpu", "float16"),),
    ),
    Case(
        name="float32-through-half",
        family="values",
        source=f"{HF}/autotrain-advanced/issues/796",
        story="weights are read in float16 and widened: the dtype is right and the digits are gone",
        buggy=partial(dtypes.ThroughHalf, first=torch.float16),
        fixed=partial(dtypes.ThroughHalf, first=None),
        cells=(Cell("qwen3", "cpu", "float32"),),
    ),
    Case(
        name="kept-in-float32-by-substring",
        family="dtype",
        source=f"{HF}/transformers/pull/26589",
        story="T5's wo is kept in float32, and so is everything that has wo in its name: word_embeddings",
        buggy=partial(dtypes.KeepsInFloat32, substring=True),
        fixed=partial(dtypes.KeepsInFloat32, substring=False),
        cells=(Cell("bloom", "cpu", "float16"), Cell("t5", "cpu", "float16")),
    ),
    Case(
        name="skeleton-without-dtype",
        family="dtype",
        source=f"{HF}/transformers/issues/40264",
        story="the empty skeleton is made in the default dtype, and the weights are read into it in that one",
        buggy=partial(dtypes.Skeleton, told=False),
        fixed=partial(dtypes.Skeleton, told=True),
        cells=(Cell("qwen2", "cpu", "bfloat16", strategy="device-map"),),
    ),
    Case(
        name="configuration-tells-another-dtype",
        family="dtype",
        source="https://github.com/hiyouga/LlamaFactory/issues/7401",
        story="the weights are bfloat16, and the configuration says float16",
        buggy=partial(dtypes.TellsAnother, exports=torch.float16),
        fixed=partial(dtypes.TellsAnother, exports=None),
        cells=(Cell("llama", "cpu", "bfloat16"),),
    ),
)
