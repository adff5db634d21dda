"""The project's own check, on every cell: each expert weight has the dtype of the configuration."""

from __future__ import annotations

from typing import Any

from experts.restore import configured_dtype, expert_weights


def test_experts_have_the_dtype_of_the_configuration(llm_model: Any) -> None:
    experts = expert_weights(llm_model)
    assert experts
    assert {name: parameter.dtype for name, parameter in experts.items()} == dict.fromkeys(
        experts, configured_dtype(llm_model.config)
    )
