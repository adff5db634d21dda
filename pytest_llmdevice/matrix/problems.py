"""Turns pydantic's list of errors into sentences that name the key, the value and what would be valid."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.matrix.suggest import LONGEST, unknown

MOST: Final = 50
"""Problems that are listed."""

TABLE_LISTS: Final = ("exclude", "include", "vary", "expect", "quantizations", "mixed", "cards")
"""Keys of a matrix that hold a list of tables."""

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each error: `expect[2].dtypes: unknown dtype 'bf16'; did you mean ...`."""
    found = error.errors(include_url=False)
    lines = [f"{_key(details['loc'])}: {_sentence(details, model)}" for details in found[:MOST]]
    return [*lines, f"and {len(found) - MOST:,} more problems"] if len(found) > MOST else lines


def _key(location: Sequence[int | str]) -> str:
    key = ""
    for part in location:
        name = part if isinstance(part, int) or len(part) <= LONGEST else f"{part[:LONGEST]}..."
        key += f"[{name}]" if isinstance(name, int) else f".{name}" if key else name
    return key or "(top level)"


def _sentence(details: ErrorDetails, model: type[BaseModel]) -> str:
    value: Any = details["input"]
    match details["type"]:
        case "extra_forbidden":
            return unknown("key", details["loc"][-1], _keys_at(details["loc"][:-1], model))
        case "missing":
            return (
                "missing; every matrix needs it"
                if len(details["loc"]) == 1
                else "missing; each of these tables needs it"
            )
        case "literal_error":
            valid = str(details["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            return unknown("value", value, valid)
        case "too_short":
            consequence = ", so the matrix would have no cells" if len(details["loc"]) == 1 else ""
            return f"is empty{consequence}; give at least one value"
        case "too_long":
            return f"has more than {details['ctx']['max_length']:,} entries"
        case "tuple_type" if (key := details["loc"][-1]) in TABLE_LISTS:
            return f"must be a list of tables, each under [[{key}]] (got {_toml_type(value)} {_shown(value)})"
        case "tuple_type":
            return f"must be a list of names (got {_toml_type(value)} {_shown(value)})"
        case "model_type" | "dict_type":
            return f"must be one table (got {_toml_type(value)} {_shown(value)})"
        case "llmdevice":
            return details["msg"]
    message = details["msg"][0].lower() + details["msg"][1:]
    return f"{message} (got {_toml_type(value)} {_shown(value)})"


def _shown(value: object) -> str:
    """`value` as Python writes it, cut where it is long: a file may hold anything."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 100
    return short.repr(value)


def _keys_at(location: Sequence[int | str], model: type[BaseModel]) -> Sequence[str]:
    """The keys that the table at `location` may have."""
    tables: Mapping[str, type[BaseModel]] = {
        name: table for name, field in model.model_fields.items() if (table := _table(field.annotation)) is not None
    }
    for part in location:
        if isinstance(part, str) and part in tables:
            model = tables[part]
    return tuple(model.model_fields)


def _table(annotation: Any) -> type[BaseModel] | None:
    if hasattr(annotation, "model_fields"):
        table: type[BaseModel] = annotation
        return table
    for argument in getattr(annotation, "__args__", ()):
        if (found := _table(argument)) is not None:
            return found
    return None


def _toml_type(value: object) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "float", list: "array", dict: "table"}
    return names.get(type(value), type(value).__name__)
