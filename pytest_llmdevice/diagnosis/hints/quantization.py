"""Known causes of quantization that is missing, or applied where it must not be."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

DROPPED: Final = Hint(
    "quantization-dropped",
    "the quantization config did not arrive, was dropped on this device, or skipped this module",
    "https://github.com/unslothai/unsloth-zoo/pull/594",
    when="a layer is dense, or of another quantization or without the options that were asked for",
)
COMPUTE: Final = Hint(
    "compute-dtype",
    "bnb_4bit_compute_dtype is float32 unless it is given",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1623",
    when="a 4-bit layer computes in another dtype than the cell's",
)
EXPERTS: Final = Hint(
    "dense-experts",
    "the experts are one 3-D parameter, not nn.Linear modules, and bitsandbytes and optimum-quanto replace only "
    "nn.Linear, torchao what FqnToConfig names: most of the model's weights stay dense",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849",
    when="the parameter that holds the experts is dense, and the cell is quantized",
)
EXCLUDED: Final = Hint(
    "not-excluded",
    "what stays dense by default (the head) was packed too: a list of modules to skip (llm_int8_skip_modules) replaces "
    "the default one, or every linear layer was replaced by hand",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1634",
    when="a layer that is to stay dense is packed",
)
WRAPPED: Final = Hint(
    "wrapped-not-packed",
    "the module was replaced by bitsandbytes' class and its weight was never packed: its name matches the skip list "
    "only in part, or the weight was assigned after the conversion",
    "https://github.com/unslothai/unsloth/pull/4209",
    when="a layer is of bitsandbytes' class, and its weight is not packed",
)
PLAIN: Final = Hint(
    "packed-in-a-plain-layer",
    "a packed weight was put into a plain layer, which multiplies its bytes as if they were numbers",
    "https://github.com/fpgaminer/joycaption/issues/3",
    when="a weight is packed, and its layer is not of bitsandbytes' class",
)
STATE_DEVICE: Final = Hint(
    "state-elsewhere",
    "scales and tables are plain attributes of the packed weight: a move that replaces the weight's data leaves them "
    "where they were; quantize on the device of use, or move with Module.to",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1791",
    when="a scale or table of a packed weight is on another device than the weight",
)
STATE_DTYPE: Final = Hint(
    "state-cast",
    "scales and tables were cast along with the model: they stay in float32 whatever the model's dtype is",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1623",
    when="a scale or table of a packed weight is not in float32",
)
KEPT_HALF: Final = Hint(
    "int8-kept-in-half",
    "llm_int8_has_fp16_weight keeps a half copy of the weights, for training",
    "https://huggingface.co/docs/transformers/quantization/bitsandbytes",
    when="an 8-bit layer has `has_fp16_weights` on",
)
BLOCKSIZE: Final = Hint(
    "odd-blocksize",
    "the weight was packed by hand with another block size than bitsandbytes' own (64, on some cards 128): larger "
    "blocks are less exact",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1856",
    when="a packed weight has another block size than 64",
)
CONFIG: Final = Hint(
    "config-and-weights-disagree",
    "model.config.quantization_config is what a saved model is read by, and it says something else than was done",
    "https://github.com/unslothai/unsloth/pull/8968",
    when="the configuration names another quantization or compute dtype than the layers have",
)
EMBEDDING: Final = Hint(
    "embedding-quantized",
    "the embedding is not to be quantized; where the head is tied to it, that quantizes or doubles the head",
    "https://github.com/huggingface/transformers/pull/37905",
    when="an embedding is of a quantized class",
)
UNASKED: Final = Hint(
    "packed-unasked",
    "the weights are packed, and the cell asks for none: the loader quantizes by itself (a default of its own, a "
    "quantization_config that is always passed), or packs after the load",
    "https://huggingface.co/docs/transformers/main_classes/quantization",
    when="a weight of a cell that asks for no quantization is kept in integers, in floats of a byte, or in a tensor of "
    "a class that packs",
)
