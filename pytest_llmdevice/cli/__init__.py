"""Provides the command `llmdevice`: all work on matrices and results that does not need pytest."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from pytest_llmdevice.cli.command import command

    command()
