"""Known causes of differences between a model and the folder that it was saved to."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

CONFIGURED: Final = Hint(
    "saved-config-dtype",
    "config.json names the dtype that the next load with dtype='auto' gives every tensor: it comes from the first "
    "floating-point tensor of the model, or from a configuration that was written by hand",
    "https://github.com/intel/auto-round/pull/2385",
    when="the dtype in the saved config.json is not the cell's, and the tensors are right in memory",
    inferred="cell",
)
TENSORS: Final = Hint(
    "saved-dtype",
    "what is saved is not what is in memory: tensors were cast while they were written or read, or the model holds "
    "dtypes that its class does not know how to load again",
    "https://github.com/unslothai/unsloth-zoo/pull/298",
    when="a tensor is in another dtype in the saved files, or after the reload, than in memory",
)
TIES: Final = Hint(
    "saved-tie",
    "the configuration and the weights disagree on what is tied: one tensor is saved and two are expected, or the "
    "other way round, and the one that is missing is made up",
    "https://github.com/huggingface/transformers/pull/42612",
    when="tensors are tied after the reload and must not be, or the other way round",
)
LOGITS: Final = Hint(
    "saved-values",
    "the reloaded model says something else: weights that are not in the files, buffers that were changed and are not "
    "saved, or a state that a quantizer keeps beside its weights",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1391",
    when="the reloaded model gives other logits, and the saved files have every tensor's dtype",
    inferred="cell",
)
CHANGED: Final = Hint(
    "changed-by-saving",
    "saving has changed the model in memory, which goes on with other weights",
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2078",
    when="the model in memory gives other logits after it was saved",
    inferred="cell",
)
