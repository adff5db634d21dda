"""Known causes of tensors in another dtype than the requested one."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

DROPPED: Final = Hint(
    "dtype-dropped",
    "the dtype was dropped on the way (dtype=, formerly torch_dtype=), or the whole model was cast afterwards "
    "(.float())",
    "https://github.com/huggingface/transformers/issues/23357",
    when="no parameter is in the dtype that was asked for, and those that are wrong are in float32",
)
UPCAST: Final = Hint(
    "upcast",
    "a part of the model is in another dtype, its output is cast, or autocast is on",
    "https://docs.pytorch.org/docs/stable/amp.html",
    when="the logits of a forward pass are neither in the cell's dtype nor in the one that a plain load gives them",
)
LATE: Final = Hint(
    "created-late",
    "the rest of the model is in the dtype that was asked for, this part is not: it was created or replaced after the "
    "cast without dtype=, or cast by itself (.float(), a list of what to keep in float32)",
    "https://github.com/NVIDIA/Megatron-LM/pull/669",
    when="some parameters are in the dtype that was asked for, and this one is in float32, in the checkpoint's shape",
)
GROWN: Final = Hint(
    "grown-embedding",
    "the embedding or the head was made anew, when the vocabulary was resized or the head replaced, in the default "
    "dtype instead of the model's",
    "https://github.com/huggingface/transformers/pull/14181",
    when=(
        "some parameters are in the dtype that was asked for, and this embedding or head has another number of "
        "rows than the checkpoint's"
    ),
)
KBIT: Final = Hint(
    "prepared-for-training",
    "prepare_model_for_kbit_training casts every weight that is not packed to float32, embedding and head included: "
    "it is for training",
    "https://github.com/huggingface/peft/issues/816",
    when=(
        "the cell is quantized, weights are packed, the configuration names the dtype that was asked for, and "
        "every tensor that is not packed is in float32: embedding, norms and head"
    ),
)
HARD_CODED: Final = Hint(
    "other-half",
    "a half dtype is written in the code (.half(), dtype=torch.float16, the checkpoint's own dtype), whichever was "
    "asked for",
    "https://github.com/allenai/open-instruct/pull/39",
    when="a tensor is in a half dtype and another dtype was asked for",
)
KEPT_CAST: Final = Hint(
    "kept-module-cast",
    "the model's class keeps this module in float32 (_keep_in_fp32_modules), because it overflows or loses too much in "
    "a half dtype; model.half() and model.to(dtype) do not know that: give the dtype to from_pretrained",
    "https://github.com/huggingface/transformers/pull/26225",
    when="a parameter that the class keeps in float32 is in another dtype",
)
BUFFER_CAST: Final = Hint(
    "buffer-cast",
    "the class computes this buffer in float32 on purpose, and a cast of the whole model (model.half(), "
    "model.to(dtype)) rounded it; give the dtype to from_pretrained instead",
    "https://github.com/huggingface/transformers/issues/29496",
    when="a buffer that the class computes in float32 is in another dtype",
)
ADAPTER: Final = Hint(
    "adapter-dtype",
    "adapters are in float32 (PEFT's autocast_adapter_dtype) or in the dtype of the model; this one kept the dtype "
    "of its file or of another model",
    "https://github.com/adapter-hub/adapters/issues/766",
    when="a tensor that the architecture does not have is neither in the cell's dtype nor in float32",
)
CONFIG: Final = Hint(
    "config-dtype",
    "the configuration says another dtype than was asked for, here or in one of its parts: what is built from it "
    "(caches, masks, a saved model) follows it",
    "https://github.com/hiyouga/LlamaFactory/issues/7401",
    when="the configuration, or one inside it, names a dtype that is neither the cell's nor the checkpoint's",
)
