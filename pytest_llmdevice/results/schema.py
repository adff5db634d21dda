"""Prints the JSON Schema of a record: `python -m pytest_llmdevice.results.schema > docs/results.schema.json`."""

from __future__ import annotations

import json
import sys

from pytest_llmdevice.results.records import json_schema


def main() -> None:
    """Print the schema."""
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
