"""Puts the example projects on the path, as each is on its own: test modules import them while they are collected."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECTS = ("ibench", "infolens", "qwen_tied", "dcu", "lmp")

sys.path[:0] = [str(Path(__file__).parents[1] / "examples" / name) for name in PROJECTS]
