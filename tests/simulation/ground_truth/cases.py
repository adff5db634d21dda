"""All cases of the ground truth, in the order in which they are recorded."""

from __future__ import annotations

from functools import cache

from . import elementwise, factories, indexing, layers, matmul, modules, several, transfers
from .declare import Case


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case that is declared."""
    subjects = (elementwise, several, matmul, layers, indexing, factories, transfers, modules)
    return tuple(case for subject in subjects for case in subject.cases())
