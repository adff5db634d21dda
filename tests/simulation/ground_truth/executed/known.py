"""The rows that the simulation answers otherwise than the CUDA build, each with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("known.json")

KNOWN: Final[dict[str, dict[str, list[str]]]] = json.loads(FILE.read_text(encoding="utf-8"))
"""Operator -> reason -> the ids of rows."""
