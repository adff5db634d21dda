"""All tests of the suite, collected from one file.

They run cell by cell. From several files, pytest's progress would name a file for each turn of each cell.
"""

from __future__ import annotations

import pytest

from pytest_llmdevice.suite.loaded import (
    test_dtypes,
    test_eval_mode,
    test_loads,
    test_no_stray_meta_tensor,
    test_placement,
    test_quantization,
    test_tied_weights,
)
from pytest_llmdevice.suite.running import test_agreement, test_forward, test_generation

__all__ = [
    "test_agreement",
    "test_dtypes",
    "test_eval_mode",
    "test_forward",
    "test_generation",
    "test_loads",
    "test_no_stray_meta_tensor",
    "test_placement",
    "test_quantization",
    "test_tied_weights",
]

# A project may turn warnings into errors; what the libraries under test deprecate is not its affair here.
pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")
