"""Maps names by patterns in which a star stands for any layer: `blocks.*.q` is `layers.*.self_attn.q_proj`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

_PART = re.compile(r"(?<![^.])\d+(?![^.])")
_ANYWHERE = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")


def template(name: str, *, anywhere: bool = False) -> tuple[str, tuple[str, ...]]:
    """`"h.3.query.weight"` as `("h.*.query.weight", ("3",))`: parts of the name that are numbers are stars.

    With `anywhere`, so are numbers that an underscore sets apart, as in `layer_3`.
    """
    number = _ANYWHERE if anywhere else _PART
    return number.sub("*", name), tuple(number.findall(name))


def filled(pattern: str, parts: Iterable[str]) -> str:
    """`pattern` with its stars replaced by `parts`, in order; stars for which there is no part stay."""
    rest = iter(parts)
    return re.sub(r"\*", lambda star: next(rest, star.group()), pattern)


def declared(name: str, patterns: Mapping[str, str]) -> str | None:
    """The name that `patterns` give to the tensor or module `name`; None where none fits.

    A star stands for any text without a dot. A pattern that fits the beginning of a name, up to a dot, renames what it
    fits: that of a module does so for its tensors. The longest pattern that fits is taken.
    """
    for pattern in sorted(patterns, key=len, reverse=True):
        expression = "([^.]+)".join(map(re.escape, pattern.split("*")))
        if found := re.match(rf"{expression}(?=\.|$)", name):
            return filled(patterns[pattern], found.groups()) + name[found.end() :]
    return None


def learned(pairs: Mapping[str, str]) -> dict[str, str]:
    """The patterns of names that all of `pairs` (name -> other name) with the same pattern agree on.

    Patterns without their last part, which name modules, are among them where they are not ambiguous.
    """
    found: dict[str, Counter[str]] = {}
    for name, other in pairs.items():
        its, numbers = template(other)
        # `layer_3` has a number that says which layer, `ln_1` has one that does not.
        forms = (template(name), template(name, anywhere=True))
        mine = next((form for form, found_there in forms if found_there == numbers), "")
        if not mine:
            continue
        found.setdefault(mine, Counter())[its] += 1
        found.setdefault(mine.rpartition(".")[0], Counter())[its.rpartition(".")[0]] += 1
    return {mine: next(iter(others)) for mine, others in found.items() if mine and len(others) == 1}
