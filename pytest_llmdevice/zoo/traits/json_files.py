"""Changes the JSON files of a checkpoint's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

CONFIGURATION: Final = "config.json"
GENERATION: Final = "generation_config.json"
TOKENIZER: Final = "tokenizer_config.json"


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Have `how` change the content of `path` in place; nothing where there is no such file."""
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    how(content)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
