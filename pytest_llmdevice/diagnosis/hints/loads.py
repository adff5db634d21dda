"""Known causes of loads that return something else than the checkpoint's model."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

OTHER_MODEL: Final = Hint(
    "other-model",
    "the target returned another model than the checkpoint's: another class (AutoModel has no head), another "
    "checkpoint, or one that is kept from an earlier load",
    "https://huggingface.co/docs/transformers/model_doc/auto",
)
RESIZED: Final = Hint(
    "resized",
    "the model was made for other sizes than the checkpoint has: layers were cut off, the vocabulary was resized to "
    "the tokenizer's, or a configuration of another checkpoint was used",
    "https://github.com/huggingface/transformers/pull/28122",
)
ATTENTION: Final = Hint(
    "other-attention",
    "attn_implementation was not handed on, or is chosen by the device: each has limits and rounding of its own",
    "https://huggingface.co/docs/transformers/attention_interface",
)
OVERRIDDEN: Final = Hint(
    "configuration-overridden",
    "the loader set, dropped or guessed a setting that enters the arithmetic: shapes fit, nothing warns, and the model "
    "is another one; hand the checkpoint's configuration on as it is",
    "https://github.com/ggml-org/llama.cpp/issues/2373",
)
HEADLESS: Final = Hint(
    "other-head",
    "a class without the checkpoint's head, or with another one in its place, was loaded: AutoModelForCausalLM (or "
    "ForSeq2SeqLM) has it, AutoModel and ForSequenceClassification have not",
    "https://huggingface.co/docs/transformers/model_doc/auto",
)
NUMBERED: Final = Hint(
    "layer-number",
    "layers were copied, exchanged or removed after they were made: each keeps its history under the number that it "
    "was made with (layer_idx)",
    "https://github.com/microsoft/TransformerCompression/issues/49",
)
