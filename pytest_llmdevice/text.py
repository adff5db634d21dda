"""Words that messages of every kind share: plurals and lists."""

from __future__ import annotations

from collections.abc import Iterable


def plural(count: int, noun: str, many: str = "") -> str:
    """`"1 cell"`, `"1,200 cells"`; `many` is the plural of a noun that does not form it with an s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """`"a, b, c and 4 more"`."""
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def joined(names: Iterable[str]) -> str:
    """`"a, b and c"`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def message_of(error: BaseException) -> str:
    """The text of `error`; an exception of the code under test may fail to say what it is."""
    try:
        return str(error).strip()
    except Exception as second:  # noqa: BLE001  # whatever its `__str__` raises
        return f"(its text cannot be had: {type(second).__name__})"


def first_line(error: BaseException, longest: int = 0) -> str:
    """`"TypeName: the first line of its text"`, cut to `longest` characters; 0 for no limit."""
    first, _, _ = message_of(error).partition("\n")
    line = f"{type(error).__name__}: {first.strip()}" if first else type(error).__name__
    return line[:longest] if longest else line


def dtype_name(dtype: object) -> str:
    """A dtype as a matrix spells it: `"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")
