"""Defines the exceptions of the package and the classes of failures, without pytest and torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

CARRIED: Final = "llm_result"
"""The attribute by which the exception of a failed check has the result that it is about."""


_OUTCOME: Final = ("_pytest.outcomes", "OutcomeException")

FailureClass: TypeAlias = Literal[
    "out-of-memory",
    "device-lost",
    "unsupported-dtype",
    "library-refusal",
    "placement",
    "dtype",
    "numeric",
    "loader",
    "time-out",
    "other",
]
"""What kind of thing went wrong; `other` is what a test of one's own asserts, and what has no class of its own."""


def _always() -> bool:
    return True


_interrupted_by_user = _always


def tell_of_users(interrupted: Callable[[], bool]) -> Callable[[], bool]:
    """Say how it is known whether a user has interrupted the process; what said so before is returned.

    Where nobody says, every `KeyboardInterrupt` is taken for a user's.
    """
    global _interrupted_by_user  # of the process, as its signals are
    before, _interrupted_by_user = _interrupted_by_user, interrupted
    return before


def of_target() -> tuple[type[BaseException], ...]:
    """What the code under test may raise and is then its result: not an interruption by the user or by the plugin.

    A script that ends in `sys.exit`, a task that was cancelled and a `BaseException` of its own are results too. To be
    called in an `except` clause, where it looks at the exception that is handled there.
    """
    error = sys.exc_info()[1]
    return () if error is None or steers(error) else (BaseException,)


@contextmanager
def target_forgiven() -> Iterator[None]:
    """Suppress what the code under test may raise."""
    try:
        yield
    except of_target():
        pass


def steers(error: BaseException) -> bool:
    """Whether `error` is meant for pytest: an outcome, such as that of `pytest.skip`, or the interruption of a user."""
    if isinstance(error, KeyboardInterrupt):
        return _interrupted_by_user()
    if isinstance(error, DoesNotApply):
        # For the check that is under way, wherever in it this was raised.
        return True
    # By name: nothing here imports pytest.
    return any((base.__module__, base.__name__) == _OUTCOME for base in type(error).__mro__)


class LLMDeviceError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(LLMDeviceError):
    """The user asked for something that cannot be: a bad matrix, an unknown name, a target without `load`.

    The plugin turns it into one `pytest.UsageError` (exit code 4), the message being the whole report.

    Attributes:
        problems: what is wrong, each by itself and without what the message says first; the message where it is one.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class CheckpointUnavailable(LLMDeviceError):
    """A checkpoint cannot be had from the hub, for want of a network or a permission: its cells are skipped."""


class CheckpointError(LLMDeviceError):
    """A checkpoint is here and is broken, or cannot be built here: its cells fail, with the cause in the first line."""


class UnsupportedByLibrary(LLMDeviceError):
    """An installed library cannot do what a cell asks: a capability to report, never a failure of the target."""


class Unsupported(LLMDeviceError):
    """Raised by a target's `load`: the code under test does not offer what the cell asks for.

    The cell is then `not offered`, with the text as the reason: neither a failure nor a pass. A target that knows it
    beforehand says so in `offers(cell)` instead.
    """


class DoesNotApply(LLMDeviceError):
    """A check is about what the model under test has not; the text says what that is."""


class SimulationError(LLMDeviceError):
    """Devices cannot be simulated here and now: real ones are present, a simulation is already under way, or
    something ran out of its sight. The message says what to do.
    """


class ResultsError(ConfigurationError):
    """A file of results or a baseline cannot be read or written. The message has the file, the line and what to do."""


def message_of(error: BaseException) -> str:
    """The text of `error`; an exception of the code under test may fail to say what it is."""
    return printed(error).strip()


def printed(value: object) -> str:
    """The text of `value`, an object of anyone's: its `__str__` may fail."""
    try:
        return str.__str__(str(value))
    except of_target() as second:  # whatever its `__str__` raises
        return f"(its text cannot be had: {type(second).__name__})"


def first_line(error: BaseException, longest: int = 0) -> str:
    """`"TypeName: the first line of its text"`, cut to `longest` characters; 0 for no limit.

    Where that line only announces others ("See the original errors:"), the one that says what went wrong follows: the
    last, if they are tracebacks, else the next.
    """
    first, _, rest = message_of(error).partition("\n")
    line = f"{type(error).__name__}: {first.strip()}" if first else type(error).__name__
    others = [other.strip() for other in rest.splitlines() if other.strip()]
    if first.rstrip().endswith(":") and others:
        line += f" {others[-1 if any(other.startswith('Traceback ') for other in others) else 0]}"
    return line[:longest] if longest else line
