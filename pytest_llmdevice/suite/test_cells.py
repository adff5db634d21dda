"""All tests of the suite, collected from one file, in the order in which they run on each cell.

From several files, pytest's progress would name a file at each turn of each cell.
"""

from __future__ import annotations

import pytest

from pytest_llmdevice.suite import loaded, running

# A project may turn warnings into errors; what the libraries under test deprecate is not its affair here.
pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

test_loads = loaded.test_loads
test_no_stray_meta_tensor = loaded.test_no_stray_meta_tensor
test_placement = loaded.test_placement
test_dtypes = loaded.test_dtypes
test_tied_weights = loaded.test_tied_weights
test_quantization = loaded.test_quantization
test_eval_mode = loaded.test_eval_mode
test_forward = running.test_forward
test_generation = running.test_generation
test_agreement = running.test_agreement
