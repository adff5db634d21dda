"""What must hold of a loaded cell: pure functions that return findings and evidence."""

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
from pytest_llmdevice.checks.quantization import check_quantization
from pytest_llmdevice.checks.result import Finding, Result
from pytest_llmdevice.checks.running import check_forward, check_generation, check_mode
from pytest_llmdevice.checks.structure import check_dtypes, check_meta, check_placement, check_tied
from pytest_llmdevice.checks.tolerance import generation_tolerance, tolerance

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
    "check_dtypes",
    "check_forward",
    "check_generation",
    "check_meta",
    "check_mode",
    "check_placement",
    "check_quantization",
    "check_tied",
    "generation_tolerance",
    "tolerance",
]
