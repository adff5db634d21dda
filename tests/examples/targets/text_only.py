"""An interface that takes text and gives text."""

from transformers import pipeline


def load(checkpoint, cell):
    return pipeline("text-generation", model=checkpoint, dtype=cell.torch_dtype, device=cell.device)


def generate_text(loaded, prompts, max_new_tokens):
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "return_full_text": False}
    return [loaded(prompt, **options)[0]["generated_text"] for prompt in prompts]
