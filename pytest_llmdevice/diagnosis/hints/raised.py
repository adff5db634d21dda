"""Known causes of exceptions of the libraries; `pytest_llmdevice.diagnosis.errors` recognizes them."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

DEVICES: Final = Hint(
    "two-devices",
    "an operation met tensors of two devices: inputs that were not moved to the embedding's device, a tensor that was "
    "left behind when the model was moved or dispatched, or one made on the way without device= (a mask, a logits "
    "processor's, a generator)",
    "https://github.com/huggingface/transformers/issues/16935",
)
DTYPES: Final = Hint(
    "two-dtypes",
    "an operation met tensors of two dtypes: a part of the model that was created after the cast, or inputs that were "
    "not cast",
    "https://github.com/NVIDIA/Megatron-LM/pull/669",
)
META: Final = Hint(
    "meta-tensor",
    "a tensor has no data: it was never loaded, or is offloaded and was read past the hook that brings it",
    "https://github.com/huggingface/transformers/pull/48409",
)
MOVED: Final = Hint(
    "moved-after-dispatch",
    "a model that is quantized, offloaded or spread over devices cannot be moved or cast as a whole: say where it goes "
    "when it is loaded (device_map=, dtype=)",
    "https://github.com/huggingface/accelerate/issues/2082",
)
NO_SUCH_DEVICE: Final = Hint(
    "no-such-device",
    "a device is named in the code that is not the one that was asked for: a card's name on a machine or branch "
    "without one, or an index that does not exist",
    "https://github.com/unslothai/unsloth/pull/10843",
)
FLOAT64: Final = Hint(
    "float64",
    "this device has no float64: a number of NumPy or Python became one; say dtype=torch.float32 where it is made",
    "https://github.com/pytorch/pytorch/issues/122602",
)
CAPABILITY: Final = Hint(
    "no-kernel",
    "this device or version has no such operation in this dtype: a limit of the hardware or library, to be excluded in "
    "the matrix, and no mistake of the loader",
    "https://github.com/Lightning-AI/litgpt/issues/498",
)
MEMORY: Final = Hint(
    "out-of-memory",
    "the device is full: an earlier model is still alive, or the model was loaded in a wider dtype than asked for",
    "https://docs.pytorch.org/docs/stable/notes/faq.html",
)
LOST: Final = Hint(
    "device-lost",
    "the device is gone for this process: a kernel read or wrote where it must not, or the hardware failed; what runs "
    "on it afterwards fails too, whatever it is (CUDA_LAUNCH_BLOCKING=1 shows the operation)",
    "https://docs.pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution",
)
