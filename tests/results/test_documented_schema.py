"""The schema in the docs is that of the records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version
from pydantic import VERSION

DOCUMENTED = Path(__file__).parents[2] / "docs" / "results.schema.json"


@pytest.mark.skipif(Version(VERSION) < Version("2.10"), reason="an older pydantic spells the same schema otherwise")
def test_the_documented_schema_is_what_the_command_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "pytest_llmdevice.results.schema"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(DOCUMENTED.read_text()) == json.loads(printed)
