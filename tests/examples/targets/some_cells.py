"""A loader that does not do everything, and says so: beforehand by `offers`, or while it loads by `Unsupported`."""

from transformers import AutoModelForCausalLM

from pytest_llmdevice import Unsupported


def offers(cell):
    if cell.quantization != "none":
        return "it knows no quantization"
    return cell.strategy == "to"


def load(checkpoint, cell):
    if cell.dtype == "float16":
        raise Unsupported("float16 needs --half, which is off")
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device)
