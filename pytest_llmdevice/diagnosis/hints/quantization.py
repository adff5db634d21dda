"""Known causes of quantization that is missing, or applied where it must not be."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

DROPPED: Final = Hint(
    "quantization-dropped",
    "the quantization config did not arrive, was dropped on this device, or skipped this module",
    "https://github.com/unslothai/unsloth-zoo/pull/594",
)
COMPUTE: Final = Hint(
    "compute-dtype",
    "bnb_4bit_compute_dtype is float32 unless it is given",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1623",
)
EXPERTS: Final = Hint(
    "dense-experts",
    "the experts are one 3-D parameter, not nn.Linear modules, and bitsandbytes replaces only nn.Linear: most of "
    "the model's weights stay dense",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1849",
)
EXCLUDED: Final = Hint(
    "not-excluded",
    "giving llm_int8_skip_modules replaces the default exclusion of the head",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1634",
)
WRAPPED: Final = Hint(
    "wrapped-not-packed",
    "the module was replaced by bitsandbytes' class and its weight was never packed: its name matches the skip list "
    "only in part, or the weight was assigned after the conversion",
    "https://github.com/unslothai/unsloth/pull/4209",
)
PLAIN: Final = Hint(
    "packed-in-a-plain-layer",
    "a packed weight was put into a plain layer, which multiplies its bytes as if they were numbers",
    "https://github.com/fpgaminer/joycaption/issues/3",
)
STATE_DEVICE: Final = Hint(
    "state-elsewhere",
    "scales and tables are plain attributes of the packed weight: a move that replaces the weight's data leaves them "
    "where they were; quantize on the device of use, or move with Module.to",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1791",
)
STATE_DTYPE: Final = Hint(
    "state-cast",
    "scales and tables were cast along with the model: they stay in float32 whatever the model's dtype is",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1623",
)
KEPT_HALF: Final = Hint(
    "int8-kept-in-half",
    "llm_int8_has_fp16_weight keeps a half copy of the weights, for training",
    "https://huggingface.co/docs/transformers/quantization/bitsandbytes",
)
BLOCKSIZE: Final = Hint(
    "odd-blocksize",
    "the weight was packed by hand with another block size than bitsandbytes' own (64, on some cards 128): larger "
    "blocks are less exact",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1856",
)
CONFIG: Final = Hint(
    "config-and-weights-disagree",
    "model.config.quantization_config is what a saved model is read by, and it says something else than was done",
    "https://github.com/unslothai/unsloth/pull/8968",
)
EMBEDDING: Final = Hint(
    "embedding-quantized",
    "the embedding is not to be quantized; where the head is tied to it, that quantizes or doubles the head",
    "https://github.com/huggingface/transformers/pull/37905",
)
