"""Runs the command as `python -m pytest_llmdevice.cli`, for when its script is not on the path."""

from __future__ import annotations

from pytest_llmdevice.cli import main

main()
