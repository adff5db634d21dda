"""The property that InfoLens documents: a prefix's logits do not depend on what follows it."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice import Cell

# Products of another shape are summed in another order. That is no error of the mask, which would be as large as
# the logits themselves.
NOISE = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 1e-1}


def test_whole_prefix_and_token_by_token_agree(llm_model: Any, llm_prompts: Any, llm_cell: Cell) -> None:
    ids = torch.tensor([max(llm_prompts, key=len)], device=llm_model.get_input_embeddings().weight.device)
    half = ids.shape[1] // 2
    with torch.inference_mode():
        whole = llm_model(ids).logits[0, :half]
        prefix = llm_model(ids[:, :half]).logits[0]
        cache, steps = None, []
        for position in range(half):
            output = llm_model(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits[0])
    # int8 rounds the activations of each row by themselves, in half precision.
    noise = NOISE["bfloat16" if llm_cell.quantization == "int8" else llm_cell.dtype]
    torch.testing.assert_close(prefix, whole, rtol=0, atol=noise)
    torch.testing.assert_close(torch.cat(steps), whole, rtol=0, atol=noise)
