"""Known causes of weights and buffers with wrong values."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

NUMERIC: Final = Hint(
    "other-logits",
    "weights, buffers and settings are the checkpoint's, and what is computed with them is not: a forward or an "
    "attention was replaced, a hook or an adapter changes what passes, the mask or the positions are others, or a part "
    "computes in a lower precision",
    "https://github.com/huggingface/transformers/issues/29496",
    when=(
        "finite logits of a forward pass differ from the reference by more than the tolerance, and nothing else "
        "was found before"
    ),
    inferred="cell",
)
NONFINITE: Final = Hint(
    "not-finite",
    "an overflow (float16 ends at 65504), a fully masked row, or weights that were never filled",
    "https://github.com/deepseek-ai/DeepSeek-V2/issues/93",
    when="logits are inf or nan",
    inferred="cell",
)
ROUNDED_BUFFER: Final = Hint(
    "buffer-rounded",
    "the whole model was cast to a half dtype, buffers included (model.half(), model.to(dtype)), and a later .float() "
    "does not bring back what was lost; ask from_pretrained for the dtype, or cast the parameters only",
    "https://github.com/NVIDIA-NeMo/Automodel/pull/2549",
    when="a buffer is what a plain load computes, rounded to a narrower dtype",
)
ROUNDED_WEIGHT: Final = Hint(
    "weights-rounded",
    "the weights went through a narrower dtype on the way: loaded in a half dtype first and widened afterwards, or "
    "the checkpoint's default dtype was taken before the one that was asked for",
    "https://github.com/allenai/open-instruct/pull/39",
    when="a weight is the checkpoint's, rounded to a narrower dtype",
)
NEVER_COMPUTED: Final = Hint(
    "buffer-never-computed",
    "no checkpoint holds this buffer: where the model is made on the meta device and then materialized (to_empty, "
    "empty weights), nothing computes it and it is whatever was in memory",
    "https://github.com/huggingface/transformers/issues/45902",
    when="a buffer is all zeros, not finite, or of magnitudes that none has",
)
NEVER_FILLED: Final = Hint(
    "weights-never-filled",
    "memory was made for this weight and nothing was read into it: its name is not among those that were loaded "
    "(strict=False, a prefix, a tied name)",
    "https://github.com/huggingface/transformers/pull/28122",
    when="a weight is all zeros, not finite, or of magnitudes that none has",
)
INITIAL: Final = Hint(
    "random-initial-value",
    "this weight has its initial value, not the checkpoint's: its name was not found (a prefix, strict=False), or it "
    "was initialized again after loading",
    "https://github.com/huggingface/transformers/issues/46620",
    when="a weight has the spread or the constant of an initial value, and not the checkpoint's",
)
OTHER_CHECKPOINT: Final = Hint(
    "other-weights",
    "the values are of a trained weight, and not of this one: another checkpoint or revision, another tensor of the "
    "same shape, or another layout (transposed, permuted, fused in another order)",
    "https://github.com/huggingface/transformers/issues/48722",
    when="a weight holds another tensor's values, or its own in another order",
)
UNRELATED: Final = Hint(
    "unrelated-weights",
    "nothing of the checkpoint's is in this weight: it is another checkpoint's or revision's, an initial value, or put "
    "together from parts in another way",
    "https://github.com/huggingface/transformers/issues/48722",
    when="a weight has values that are near none of the checkpoint's, and are not recognized as initial ones",
)
OTHER_BUFFER: Final = Hint(
    "buffer-of-another-configuration",
    "the buffer was computed, from other settings than the checkpoint's configuration has (rope_theta, rope scaling, "
    "head size, a default configuration)",
    "https://github.com/vllm-project/vllm/pull/44158",
    when="a buffer differs from a plain load's, and was neither rounded nor left unwritten",
)
CHANGED: Final = Hint(
    "weights-changed",
    "near the checkpoint's values and not equal: quantized and brought back, merged with an adapter, scaled, or with a "
    "constant added (the 1 of a norm)",
    "https://github.com/huggingface/peft/issues/1043",
    when="a weight is near the checkpoint's and not equal, a multiple of it, or it with a constant added",
)
SHAPE: Final = Hint(
    "other-shape",
    "the module was made for another configuration (a resized vocabulary, another number of heads) and a mismatch was "
    "allowed (ignore_mismatched_sizes)",
    "https://github.com/huggingface/transformers/pull/28122",
    when="a tensor has another shape than the checkpoint's",
)
PACKED: Final = Hint(
    "packed-from-other-values",
    "what was quantized is not the checkpoint's weight: quantized before it was filled, quantized two times, or its "
    "scales belong to another weight",
    "https://github.com/huggingface/peft/pull/1370",
    when="an unpacked weight is not the checkpoint's within the error of its quantization",
)
SHIFTED: Final = Hint(
    "codes-off-by-one",
    "a zero point is off by one: packed numbers are read as another version of the format, or another library, has "
    "them",
    "https://github.com/vllm-project/vllm/pull/38966",
    when="the errors of an unpacked weight are about the same everywhere, and as small as those of rounding",
)
NOT_APPLIED: Final = Hint(
    "adapter-not-applied",
    "the adapter of the checkpoint is not in the model, or not as it was saved: only the base was loaded, or "
    "get_peft_model made a fresh adapter before the saved one was read (its names then fit nothing, and B stays "
    "zero), another scale was taken, or it is switched off; load it with PeftModel.from_pretrained on the plain base",
    "https://github.com/huggingface/peft/issues/2115",
    when="the checkpoint is an adapter, and a weight is the base's, or a tensor of the adapter is missing or another",
)
UNREADABLE: Final = Hint(
    "no-way-to-unpack",
    "the quantization does not say what unpacks a weight (its `dequantize`), and neither the tensor nor the layer has "
    "a method of that name, so nobody knows whether the weight is the checkpoint's",
    "https://github.com/pytest-llmdevice/pytest-llmdevice/blob/main/docs/extending.md",
    when="a weight is packed, and nothing gives its numbers",
)
COMPUTED_OTHERWISE: Final = Hint(
    "module-computes-otherwise",
    "a module with the right weights and settings computes with another constant, precision or formula: an embedding "
    "scale that is not rounded to the model's dtype as in training, a norm that casts in another order or has another "
    "epsilon, a table of positions in 16 bits or with other factors, another variant of GELU, another scale of "
    "attention or function of a router",
    "https://github.com/huggingface/transformers/pull/37109",
    when="a module says something else than that of a plain load to the same input, its tensors being the same",
)
