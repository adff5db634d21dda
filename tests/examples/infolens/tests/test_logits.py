"""The property that InfoLens documents: a prefix's logits do not depend on what follows it."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.mark.llm_matrix(devices="cpu", dtypes="float32", quantization="none")
def test_prefix_and_whole_sequence_agree_exactly_on_the_cpu_in_float32(llm_model: Any, llm_prompts: Any) -> None:
    for prompt in llm_prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            whole = llm_model(ids).logits[0]
            prefix = llm_model(ids[:, : len(prompt) // 2]).logits[0]
        torch.testing.assert_close(prefix, whole[: len(prefix)], rtol=0, atol=1e-4)
