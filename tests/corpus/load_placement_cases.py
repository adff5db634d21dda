"""The cases of `load_placement`."""

from __future__ import annotations

from functools import partial

from corpus import load_placement as placement
from corpus.case import Case
from pytest_llmdevice import Cell


def card(model: str, dtype: str = "bfloat16", device: str = "cuda:1", **more: str) -> Cell:
    return Cell(model, device, dtype, simulated=True, **more)


PIECES = ("model.embed_tokens", "model.layers", "model.norm", "lm_head")
HF = "https://github.com/huggingface"

CASES = (
    Case(
        name="card-without-index",
        family="placement",
        source="https://github.com/thunlp/OpenPrompt/issues/160",
        story="the model is moved to cuda, which is the current card, and another one was asked for",
        buggy=partial(placement.Mover, index=False),
        fixed=partial(placement.Mover, index=True),
        cells=(card("gpt2", "float16"),),
        machine="cuda:2",
    ),
    Case(
        name="card-zero-is-false",
        family="placement",
        source="https://github.com/isletennos/MMVC_Client/pull/22",
        story="the number of the card is tested for truth, and the first one is number 0",
        buggy=partial(placement.ByNumber, careful=False),
        fixed=partial(placement.ByNumber, careful=True),
        cells=(card("qwen2", device="cuda:0"),),
        machine="cuda:2",
    ),
    Case(
        name="auto-map-for-one-card",
        family="placement",
        source="https://github.com/QwenLM/Qwen3/issues/286",
        story="device_map is auto whenever there is a card, and the card that was asked for is never looked at",
        buggy=partial(placement.Mapped, choose="auto"),
        fixed=partial(placement.Mapped, choose="asked"),
        cells=(card("qwen3", strategy="device-map"),),
        machine="cuda:2",
    ),
    Case(
        name="card-zero-in-the-code",
        family="placement",
        source=f"{HF}/optimum/issues/1669",
        story="the map says card 0, whichever was asked for",
        buggy=partial(placement.Mapped, choose="first"),
        fixed=partial(placement.Mapped, choose="asked"),
        cells=(card("bloom", "float16", "cuda:5", strategy="device-map"),),
        machine="cuda:8",
    ),
    Case(
        name="card-on-a-cpu-cell",
        family="placement",
        source="https://github.com/KennthShang/PhaBOX/issues/10",
        story="the CPU was asked for, and a card is taken because there is one",
        buggy=partial(placement.Picks, rule="card if there is one"),
        fixed=partial(placement.Picks, rule="as asked"),
        cells=(Cell("llama", "cpu", "float32"),),
        beside="cuda:2",
    ),
    Case(
        name="apple-is-not-cuda",
        family="placement",
        source="https://github.com/jingyaogong/minimind/pull/818",
        story="cuda or else cpu: on a Mac the model stays on the CPU",
        buggy=partial(placement.Picks, rule="card if there is one"),
        fixed=partial(placement.Picks, rule="as asked"),
        cells=(Cell("qwen2", "mps", "float16", simulated=True),),
        machine="mps",
    ),
    Case(
        name="rocm-has-no-cuda-version",
        family="placement",
        source="https://github.com/pytorch/pytorch/issues/170778",
        story="torch.version.cuda is None on ROCm, and that is taken for a build without cards",
        buggy=partial(placement.Picks, rule="nvidia only"),
        fixed=partial(placement.Picks, rule="as asked"),
        cells=(Cell("opt", "cuda:0", "float16", kind="rocm", simulated=True),),
        machine="rocm",
    ),
    Case(
        name="intel-is-not-cuda",
        family="placement",
        source="https://github.com/mudler/LocalAI/pull/5737",
        story="only a device whose name begins with cuda is a card: an Intel one runs on the CPU",
        buggy=partial(placement.Picks, rule="cuda by name"),
        fixed=partial(placement.Picks, rule="as asked"),
        cells=(Cell("phi3", "xpu:0", "bfloat16", simulated=True),),
        machine="xpu",
    ),
    Case(
        name="device-of-the-first-model",
        family="placement",
        source="https://github.com/EleutherAI/lm-evaluation-harness/issues/1575",
        story="the device is remembered from the first load, and the second model goes there too",
        buggy=partial(placement.Remembers, forgets=False),
        fixed=partial(placement.Remembers, forgets=True),
        cells=(card("llama", device="cuda:0"),),
        others=(card("llama", device="cuda:1"),),
        machine="cuda:2",
    ),
    Case(
        name="moved-after-the-map",
        family="placement",
        source="https://github.com/01-ai/Yi/issues/242",
        story="a model that is spread over two cards is moved to one, and its hooks still send data to the other",
        buggy=partial(placement.MovedAgain, again=True),
        fixed=partial(placement.MovedAgain, again=False),
        cells=(card("llama", device="cuda:0", strategy="balanced"),),
        machine="cuda:2",
    ),
    Case(
        name="rotary-module-not-in-the-list",
        family="placement",
        source="https://github.com/deepseek-ai/DeepSeek-R1/issues/554",
        story="layers are moved one by one, and the rotary embedding is in none of them",
        buggy=partial(placement.Piecewise, pieces=PIECES),
        fixed=partial(placement.Piecewise, pieces=(*PIECES, "model.rotary_emb")),
        cells=(card("gemma3", device="cuda:1"),),
        machine="cuda:2",
    ),
    Case(
        name="last-norm-not-in-the-list",
        family="placement",
        source="https://github.com/orssorbit/ComfyUI-wanBlockswap/issues/4",
        story="layers are moved one by one, and the last norm is forgotten",
        buggy=partial(placement.Piecewise, pieces=("backbone.embeddings", "backbone.layers", "lm_head")),
        fixed=partial(
            placement.Piecewise, pieces=("backbone.embeddings", "backbone.layers", "backbone.norm_f", "lm_head")
        ),
        cells=(card("mamba", "float32", "cuda:0"),),
        machine="cuda:2",
    ),
    Case(
        name="tied-head-on-another-card",
        family="placement",
        source=f"{HF}/accelerate/issues/993",
        story="a map by hand puts the head on the last card, and the tie to the embedding is cut",
        buggy=partial(placement.Stale, tied=False),
        fixed=partial(placement.Stale, tied=True),
        cells=(card("gpt2", "float32", "cuda:0", strategy="split"),),
        machine="cuda:2",
    ),
    Case(
        name="two-cards-and-no-hooks",
        family="placement",
        source="https://github.com/turboderp/exllama/issues/10",
        story="layers are put on the second card by hand, and nothing moves the activations",
        buggy=partial(placement.WithoutHooks, hooks=False),
        fixed=partial(placement.WithoutHooks, hooks=True),
        cells=(card("mistral", device="cuda:0", strategy="split"),),
        machine="cuda:2",
    ),
    Case(
        name="tensor-that-is-no-buffer",
        family="placement",
        source="https://github.com/pytorch/pytorch/issues/29807",
        story="a tensor is a plain attribute of a module, and stays where it was when the module moves",
        buggy=partial(placement.ScalesNorm, buffer=False),
        fixed=partial(placement.ScalesNorm, buffer=True),
        cells=(card("llama", device="cuda:0"),),
        machine="cuda:2",
    ),
    Case(
        name="head-left-on-meta",
        family="placement",
        source=f"{HF}/transformers/issues/46566",
        story="the tied head is in no file and was never tied: it stays on the meta device, and generates",
        buggy=partial(placement.EmptyFirst, ties=False),
        fixed=partial(placement.EmptyFirst, ties=True),
        cells=(Cell("qwen2", "cpu", "float32"),),
    ),
    Case(
        name="offload-that-never-happens",
        family="placement",
        source="https://github.com/vllm-project/compressed-tensors/pull/328",
        story="offloading is left to a limit of memory which the model is far below",
        buggy=partial(placement.Offloads, limit=True),
        fixed=partial(placement.Offloads, limit=False),
        cells=(card("llama", device="cuda:0", strategy="cpu-offload"),),
        machine="cuda:2",
    ),
)
