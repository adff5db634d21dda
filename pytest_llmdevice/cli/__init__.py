"""The command `llmdevice`: everything about a matrix and its results that needs no pytest."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from pytest_llmdevice.cli.command import command

    command()
