"""Known causes of exceptions of the libraries, each with the texts that it is recognized by."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.diagnosis.finding import Hint

MEMORY: Final = Hint(
    "out-of-memory",
    "the device is full: an earlier model is still alive, or the model was loaded in a wider dtype than asked for",
    "https://docs.pytorch.org/docs/stable/notes/faq.html",
    failure="out-of-memory",
    patterns=(
        r"out of memory",
        r"not enough memory",
    ),
)
LOST: Final = Hint(
    "device-lost",
    "the device is gone for this process: a kernel read or wrote where it must not, or the hardware failed; what runs "
    "on it afterwards fails too, whatever it is (CUDA_LAUNCH_BLOCKING=1 shows the operation)",
    "https://docs.pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution",
    failure="device-lost",
    patterns=(
        r"device-side assert",
        r"illegal (memory access|instruction|address)",
        r"misaligned address",
        r"unspecified launch failure",
        r"uncorrectable ECC",
        r"hardware (stack )?error",
        r"device (is )?(lost|unavailable|not ready)|DEVICE_LOST",
        r"HSA_STATUS_ERROR",
        r"CUDA error: unknown error",
    ),
)
META: Final = Hint(
    "meta-tensor",
    "a tensor has no data: it was never loaded, or is offloaded and was read past the hook that brings it",
    "https://github.com/huggingface/transformers/pull/48409",
    failure="placement",
    patterns=(
        r"Cannot copy out of meta tensor",
        r"cannot be called on meta tensors",
        r"is on the meta device, we need a",
        r"Tensor on device meta",
        r"\bmeta and (cpu|cuda|mps|xpu)|(cpu|cuda:\d+|mps|xpu:\d+) and meta\b",
    ),
)
MOVED: Final = Hint(
    "moved-after-dispatch",
    "a model that is quantized, offloaded or spread over devices cannot be moved or cast as a whole: say where it goes "
    "when it is loaded (device_map=, dtype=)",
    "https://github.com/huggingface/accelerate/issues/2082",
    failure="library-refusal",
    patterns=(
        r"can't move a model that has some modules offloaded",
        r"is not supported for `?4-bit`? or `?8-bit`? (bitsandbytes )?models",
        r"cannot cast a bitsandbytes model",
    ),
)
DEVICES: Final = Hint(
    "two-devices",
    "an operation met tensors of two devices: inputs that were not moved to the embedding's device, a tensor that was "
    "left behind when the model was moved or dispatched, or one made on the way without device= (a mask, a logits "
    "processor's, a generator)",
    "https://github.com/huggingface/transformers/issues/16935",
    failure="placement",
    patterns=(
        r"Expected all tensors to be on the same device",
        r"found at least two devices",
        r"is on \S+, different from other tensors on",
        r"must be on the current device",
        r"should be either on cpu or on the same device",
        r"to be on the same device",
        r"to have the same device type",
        r"is not on the expected device",
        r"Placeholder storage has not been allocated",
        r"cannot be accessed from Triton",
        r"Expected a \w+ device, but got",
        r"can't convert \S+ device type tensor to numpy",
        r"Expected a '\w+' (device type )?(for )?generator",
    ),
)
DTYPES: Final = Hint(
    "two-dtypes",
    "an operation met tensors of two dtypes: a part of the model that was created after the cast, or inputs that were "
    "not cast",
    "https://github.com/NVIDIA/Megatron-LM/pull/669",
    failure="dtype",
    patterns=(
        r"(must|to) have the same dtype",
        r"expected scalar type \w+ but found",
        r"Input type .* and (bias|weight) type .* should be the same",
        r"source expected to have the same dtype",
        r"source and destination dtypes match",
        r"to have one of the following scalar types",
        r"tensors used as indices must be",
    ),
)
REMOVED_ARGUMENT: Final = Hint(
    "load-in-4bit-removed",
    "transformers 5 has removed load_in_4bit= and load_in_8bit= from from_pretrained: give it "
    "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
    "https://github.com/huggingface/transformers/pull/41287",
    failure="library-refusal",
    patterns=(r"unexpected keyword argument '(load_in_4bit|load_in_8bit)'",),
)
NO_SUCH_DEVICE: Final = Hint(
    "no-such-device",
    "a device is named in the code that is not the one that was asked for: a card's name on a machine or branch "
    "without one, or an index that does not exist",
    "https://github.com/unslothai/unsloth/pull/10843",
    failure="placement",
    patterns=(
        r"invalid device ordinal",
        r"not compiled with CUDA enabled",
        r"No CUDA GPUs are available",
        r"Found no NVIDIA driver",
        r"device type at start of device string",
        r"Attempting to deserialize object on",
        # Another word is no card's name.
        r"Invalid device string: '(?:cuda|cpu|mps|xpu|hip|npu|hpu)",
    ),
)
FLOAT64: Final = Hint(
    "float64",
    "this device has no float64: a number of NumPy or Python became one; say dtype=torch.float32 where it is made",
    "https://github.com/pytorch/pytorch/issues/122602",
    failure="unsupported-dtype",
    patterns=(
        r"Cannot convert a MPS Tensor to float64",
        r"doesn't support float64",
    ),
)
CAPABILITY: Final = Hint(
    "no-kernel",
    "this device or version has no such operation in this dtype: a limit of the hardware or library, to be excluded in "
    "the matrix, and no mistake of the loader",
    "https://github.com/Lightning-AI/litgpt/issues/498",
    failure="unsupported-dtype",
    patterns=(
        r"not implemented for '\w+'",
        r"is not supported on MPS",
        r"blockwise of \d+ is not supported",
        r"not support bfloat16",
    ),
)
