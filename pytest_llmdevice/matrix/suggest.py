"""Writes the message about an unknown name: the name, the nearest valid one, and all valid ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

LONGEST: Final = 200
"""Characters of an unknown name that are looked at and shown."""


def nearest(value: object, valid: Iterable[str]) -> str | None:
    """The valid name closest in spelling to `value`, or None when nothing comes near."""
    # Only when something is wrong already: most runs have no use for it.
    import difflib

    names = {name.lower(): name for name in valid}
    found = difflib.get_close_matches(str(value)[:LONGEST].lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else None


def unknown(what: str, value: object, valid: Iterable[str]) -> str:
    """One sentence for an unknown name: `unknown dtype 'bfloat': did you mean 'bfloat16'? (valid: ...)`."""
    names = list(valid)
    return f"{unknown_name(what, value, names)} (valid: {', '.join(names)})"


def unknown_name(what: str, value: object, valid: Iterable[str]) -> str:
    """The same without the list, for messages that have a list of their own."""
    guess = nearest(value, valid)
    hint = f"; did you mean {guess!r}?" if guess else ""
    shown = f"{value[:LONGEST]}..." if isinstance(value, str) and len(value) > LONGEST else value
    return f"unknown {what} {shown!r}{hint}"
