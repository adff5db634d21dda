"""Known causes of loads that return something else than the checkpoint's model."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

OTHER_MODEL: Final = Hint(
    "other-model",
    "the target returned another model than the checkpoint's: another class (AutoModel has no head), another "
    "checkpoint, or one that is kept from an earlier load",
    "https://huggingface.co/docs/transformers/model_doc/auto",
    when=(
        "the model is of another model type than the checkpoint, or lacks most of its tensors, and none of other "
        "names have their shapes"
    ),
)
RENAMED: Final = Hint(
    "modules-renamed",
    "a class around the model gives its modules other names than the checkpoint has, and nothing says which is which: "
    "return the model that is inside, or keep its names behind one prefix",
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.named_parameters",
    when=(
        "most of the checkpoint's tensors are not found by their names, and the model has as many others of the "
        "same shapes"
    ),
)
RESIZED: Final = Hint(
    "resized",
    "the model was made for other sizes than the checkpoint has: layers were cut off, the vocabulary was resized to "
    "the tokenizer's, or a configuration of another checkpoint was used",
    "https://github.com/huggingface/transformers/pull/28122",
    when="a size in the configuration, or the shape of a tensor, is not the checkpoint's",
)
ATTENTION: Final = Hint(
    "other-attention",
    "attn_implementation was not handed on, or is chosen by the device: each has limits and rounding of its own",
    "https://huggingface.co/docs/transformers/attention_interface",
    when="the configuration names another implementation of attention than the cell",
)
OVERRIDDEN: Final = Hint(
    "configuration-overridden",
    "the loader set, dropped or guessed a setting that enters the arithmetic: shapes fit, nothing warns, and the model "
    "is another one; hand the checkpoint's configuration on as it is",
    "https://github.com/ggml-org/llama.cpp/issues/2373",
    when="a setting of a module or a configuration is not that of a plain load",
)
HEADLESS: Final = Hint(
    "other-head",
    "a class without the checkpoint's head, or with another one in its place, was loaded: AutoModelForCausalLM (or "
    "ForSeq2SeqLM) has it, AutoModel and ForSequenceClassification have not",
    "https://huggingface.co/docs/transformers/model_doc/auto",
    when="the class is not the checkpoint's, and a parameter that the checkpoint's has is missing",
)
NUMBERED: Final = Hint(
    "layer-number",
    "layers were copied, exchanged or removed after they were made: each keeps its history under the number that it "
    "was made with (layer_idx)",
    "https://github.com/microsoft/TransformerCompression/issues/49",
    when="the `layer_idx` of a module is not that of a plain load",
)
