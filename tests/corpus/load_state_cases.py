"""The cases of `load_state`."""

from __future__ import annotations

from functools import partial

from corpus import load_state as state
from corpus.case import Case
from pytest_llmdevice import Cell

HF = "https://github.com/huggingface"

CASES = (
    Case(
        name="visible-devices-set",
        family="state",
        source="https://github.com/videoflow/videoflow/pull/53",
        story="the loader sets CUDA_VISIBLE_DEVICES for the whole process",
        buggy=partial(state.Visible, sets=True),
        fixed=partial(state.Visible, sets=False),
        cells=(Cell("llama", "cpu", "float32"),),
    ),
    Case(
        name="default-dtype-left",
        family="state",
        source=f"{HF}/transformers/issues/28461",
        story="the default dtype is that of the model from now on",
        buggy=partial(state.Default, "dtype", restores=False),
        fixed=partial(state.Default, "dtype", restores=True),
        cells=(Cell("qwen2", "cpu", "bfloat16"),),
    ),
    Case(
        name="default-device-left",
        family="state",
        source="https://github.com/pytorch/pytorch/pull/174317",
        story="every tensor that is made from now on is on the card",
        buggy=partial(state.Default, "device", restores=False),
        fixed=partial(state.Default, "device", restores=True),
        cells=(Cell("llama", "cuda:1", "bfloat16", simulated=True),),
        machine="cuda:2",
    ),
    Case(
        name="current-card-left",
        family="state",
        source="https://github.com/cupy/cupy/issues/6569",
        story="the current card is another one after the load",
        buggy=partial(state.Current, restores=False),
        fixed=partial(state.Current, restores=True),
        cells=(Cell("opt", "cuda:1", "float16", simulated=True),),
        machine="cuda:2",
    ),
    Case(
        name="initializers-left-patched",
        family="state",
        source="https://github.com/vllm-project/llm-compressor/pull/695",
        story="torch.nn.init does nothing from now on",
        buggy=partial(state.SkipsInitialization, restores=False),
        fixed=partial(state.SkipsInitialization, restores=True),
        cells=(Cell("gpt2", "cpu", "float32"),),
    ),
    Case(
        name="kept-by-folder-alone",
        family="state",
        source="https://github.com/PriorLabs/TabPFN/pull/1219",
        story="models are kept by their folder, and the second dtype gets the model of the first one",
        buggy=partial(state.Kept, ()),
        fixed=partial(state.Kept, ("device", "dtype", "quantization", "strategy")),
        cells=(Cell("llama", "cpu", "float32"),),
        others=(Cell("llama", "cpu", "bfloat16"),),
    ),
    Case(
        name="moved-with-the-first-model",
        family="state",
        source="https://github.com/PriorLabs/TabPFN/pull/1219",
        story="one model is kept and moved to wherever the next one is asked for, from under the first one's feet",
        buggy=partial(state.KeptAndMoved, copies=False),
        fixed=partial(state.KeptAndMoved, copies=True),
        cells=(Cell("mistral", "cuda:0", "float16", simulated=True),),
        others=(Cell("mistral", "cuda:1", "float16", simulated=True),),
        machine="cuda:2",
    ),
    Case(
        name="kept-in-a-list",
        family="state",
        source="https://github.com/vc1492a/henosis/issues/20",
        story="a list in the loader holds every model that was ever loaded",
        buggy=partial(state.Engines, models_too=True),
        fixed=partial(state.Engines, models_too=False),
        cells=(Cell("qwen3", "cpu", "float32"),),
    ),
    Case(
        name="configuration-of-the-first-load",
        family="state",
        source=f"{HF}/transformers/issues/24774",
        story="the configuration is kept with the dtype of the first load in it",
        buggy=partial(state.KeptConfiguration, copies=False),
        fixed=partial(state.KeptConfiguration, copies=True),
        cells=(Cell("phi3", "cpu", "bfloat16"),),
        others=(Cell("phi3", "cpu", "float16"),),
    ),
    Case(
        name="autocast-left-on",
        family="state",
        source="https://github.com/pytorch/pytorch/issues/195488",
        story="autocast is entered and never left",
        buggy=partial(state.Autocasts, leaves=False),
        fixed=partial(state.Autocasts, leaves=True),
        cells=(Cell("llama", "cpu", "float32"),),
    ),
    Case(
        name="matrix-products-less-exact",
        family="state",
        source="https://github.com/facebookresearch/fairchem/pull/2108",
        story="the loader lowers the precision of float32 matrix products, for every model of the process",
        buggy=partial(state.Multiplies, precision="high"),
        fixed=partial(state.Multiplies, precision="highest"),
        cells=(Cell("llama", "cpu", "float32"),),
    ),
    Case(
        name="training-mode",
        family="state",
        source="https://github.com/illuin-tech/vidore-benchmark/pull/42",
        story="the model is in training mode: dropout is active",
        buggy=partial(state.Trains, evaluates=False),
        fixed=partial(state.Trains, evaluates=True),
        cells=(Cell("gpt2", "cpu", "float32"),),
    ),
)
