"""A loader that returns a pipeline: the model in it is found, and `generate` gets the pipeline back."""

from transformers import pipeline


def load(checkpoint, cell):
    where = {"device": cell.device} if cell.strategy == "to" else {"device_map": cell.strategy}
    return pipeline("text-generation", model=checkpoint, dtype=cell.torch_dtype, **where)


def generate(loaded, prompts, max_new_tokens):
    batch = loaded.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(loaded.device)
    rows = loaded.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
    return rows[:, batch["input_ids"].shape[1] :].tolist()
