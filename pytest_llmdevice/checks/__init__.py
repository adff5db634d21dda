"""Checks what must hold of a loaded cell: functions that return findings and evidence."""

from __future__ import annotations

from pytest_llmdevice.checks.agreement import check_agreement
from pytest_llmdevice.checks.assertions import (
    assert_agrees,
    assert_dtypes,
    assert_eval_mode,
    assert_forward,
    assert_generates,
    assert_no_meta,
    assert_placement,
    assert_quantized,
    assert_tied,
)
from pytest_llmdevice.checks.cache import check_cache
from pytest_llmdevice.checks.cards import check_cards
from pytest_llmdevice.checks.dtypes import check_dtypes
from pytest_llmdevice.checks.generation import check_generation
from pytest_llmdevice.checks.inputs import check_inputs
from pytest_llmdevice.checks.loads import check_loads
from pytest_llmdevice.checks.meta import check_meta
from pytest_llmdevice.checks.padding import check_padding
from pytest_llmdevice.checks.placement import check_placement
from pytest_llmdevice.checks.prefix import check_prefix
from pytest_llmdevice.checks.quantization import check_quantization
from pytest_llmdevice.checks.reload import check_reload
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.running import check_forward, check_mode
from pytest_llmdevice.checks.sampling import check_sampling
from pytest_llmdevice.checks.save import check_save
from pytest_llmdevice.checks.state import check_state
from pytest_llmdevice.checks.tied import check_tied
from pytest_llmdevice.checks.tolerance import generation_tolerance, tolerance
from pytest_llmdevice.checks.values import check_values
from pytest_llmdevice.diagnosis import Finding

__all__ = [
    "Finding",
    "Result",
    "assert_agrees",
    "assert_dtypes",
    "assert_eval_mode",
    "assert_forward",
    "assert_generates",
    "assert_no_meta",
    "assert_placement",
    "assert_quantized",
    "assert_tied",
    "check_agreement",
    "check_cache",
    "check_cards",
    "check_dtypes",
    "check_forward",
    "check_generation",
    "check_inputs",
    "check_loads",
    "check_meta",
    "check_mode",
    "check_padding",
    "check_placement",
    "check_prefix",
    "check_quantization",
    "check_reload",
    "check_sampling",
    "check_save",
    "check_state",
    "check_tied",
    "check_values",
    "generation_tolerance",
    "tolerance",
]
