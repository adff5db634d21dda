"""Known causes of tensors on wrong devices."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

LEFT_BEHIND: Final = Hint(
    "left-behind",
    "this tensor was not moved with the rest: it is created after the move, modules were moved one by one and its own "
    "is not among them, or the device map does not name it",
    "https://github.com/huggingface/transformers/pull/35417",
    when="a parameter is on the cpu, other tensors are on the card that was asked for",
)
WRONG_INDEX: Final = Hint(
    "wrong-index",
    "a device without an index means the current card, and a number in the code (device_map={'': 0}, device=0) that "
    "one: the card that was asked for is never looked at",
    "https://github.com/huggingface/optimum/issues/1669",
    when=(
        "all tensors, or some of them and those on the first card, are on a card of the right kind and another "
        "index, and no device map spreads them"
    ),
)
META: Final = Hint(
    "never-materialized",
    "a parameter was never given its weights: operations with it read uninitialised memory",
    "https://github.com/huggingface/accelerate/issues/2082",
    when="a tensor is on meta, and no hook of accelerate's holds its data",
)
TIED: Final = Hint(
    "tie-lost",
    "loading or moving replaced one of the two tensors; call model.tie_weights() after it",
    "https://huggingface.co/docs/accelerate/concept_guides/big_model_inference",
    when="two parameters that the checkpoint ties are two tensors",
)
CARD_PREFERRED: Final = Hint(
    "card-preferred",
    "the code takes a card where there is one (torch.cuda.is_available(), device_map='auto'), whatever was asked for: "
    "the same call behaves otherwise on a machine with cards",
    "https://huggingface.co/docs/accelerate/concept_guides/big_model_inference",
    when="the cpu was asked for, and a tensor is on a card",
)
NEVER_MOVED: Final = Hint(
    "never-moved",
    "the whole model stayed where it was loaded: the device was dropped on the way, or is honoured on one branch only",
    "https://github.com/huggingface/peft/issues/1840",
    when="a card was asked for, every tensor is on the cpu, and no device map says so",
)
BUFFER_LEFT_BEHIND: Final = Hint(
    "buffer-left-behind",
    "this buffer was not moved with its module: only parameters were moved, the layers were moved one by one, or the "
    "device map names the layers and not the module that has it (rotary_emb)",
    "https://github.com/huggingface/transformers/pull/35417",
    when="a buffer is on the cpu, other tensors are on the card that was asked for",
)
ATTRIBUTE: Final = Hint(
    "plain-attribute",
    "this tensor is a plain attribute, neither a parameter nor a buffer, and Module.to passes it by: register_buffer("
    "..., persistent=False) makes it move",
    "https://github.com/huggingface/transformers/pull/22234",
    when="a tensor that is neither parameter nor buffer is on a device that is none of the cell's",
)
SPREAD: Final = Hint(
    "spread-by-a-map",
    "a device map spread the model over several devices (device_map='auto', 'balanced') although one was asked for: "
    "device_map={'': device} is for one",
    "https://github.com/unslothai/unsloth/pull/11129",
    when="one device was asked for, and the model's device map has several",
)
OFFLOADED: Final = Hint(
    "offloaded-unasked",
    "a device map offloaded this tensor, which nobody asked for: accelerate took the device to be full (max_memory), "
    "or the map says cpu or disk",
    "https://huggingface.co/docs/accelerate/concept_guides/big_model_inference",
    when=(
        "a tensor that is to be on a device is on meta with a hook that brings it, or the device map says cpu or disk"
    ),
)
STALE: Final = Hint(
    "stale-map",
    "the model was moved, or a module or tie was replaced, after it was dispatched: hooks and hf_device_map still send "
    "inputs to the old device; do not call .to() or .cuda() on a model that has a device map, dispatch it again",
    "https://github.com/01-ai/Yi/issues/242",
    when="the model has a device map or hooks, and a tensor is on another device than they say",
)
ADAPTER: Final = Hint(
    "adapter-elsewhere",
    "what was added to this layer was created on another device than the layer's: on the current card or on the cpu",
    "https://github.com/huggingface/accelerate/issues/2829",
    when="a tensor that was added to a layer is on another device than the layer",
)
NOT_FOLLOWED: Final = Hint(
    "strategy-not-followed",
    "the map was dropped, or one that has a single device in it was used: accelerate then places the whole model there "
    "and attaches no hooks",
    "https://github.com/huggingface/accelerate/pull/1648",
    when="several devices, or offloading, were asked for, and all tensors are on one device, or none is offloaded",
)
NOT_CUT: Final = Hint(
    "weights-not-cut",
    "each process has loaded the whole model: `tp_plan` or `DistributedConfig` did not reach `from_pretrained`, or the "
    "model was wrapped before it had a plan",
    "https://huggingface.co/docs/transformers/main/en/perf_infer_gpu_multi",
    when="the processes of a cell should each have a part of the weights, and have all of them",
)
NO_HOOKS: Final = Hint(
    "spread-without-hooks",
    "layers were put on several cards by hand: without accelerate's hooks (dispatch_model) nothing brings what one "
    "layer says to the card of the next",
    "https://huggingface.co/docs/accelerate/concept_guides/big_model_inference",
    when="several cards were asked for, tensors are on several, and the model has neither a device map nor hooks",
)
PIPELINE: Final = Hint(
    "pipeline-moves-to-card-0",
    "transformers.pipeline moves a model that has no hf_device_map to card 0, and one that device_map= put on a single "
    "device has none: give device= to the pipeline too",
    "https://github.com/huggingface/transformers/blob/main/src/transformers/pipelines/base.py",
    when=(
        "every tensor is on the first card, another device was asked for, the model has no `hf_device_map`, and "
        "the load made a `transformers.pipeline` of it"
    ),
)
NO_DATA: Final = Hint(
    "offloaded-data-gone",
    "the hook that is to bring this tensor has no data for it: it was offloaded under another name, a tie was made or "
    "a module replaced afterwards, or the folder that it was offloaded to is gone",
    "https://github.com/huggingface/accelerate/issues/2082",
    when="a hook of accelerate's is to bring a tensor and has no data for it",
)
