"""Has what a test of a cell raises end that test, and neither the session nor the cells that follow.

pytest is made for exceptions of two classes, `Exception` and its own outcomes. A fixture that raises another one is
left half made, and fails for every cell that follows; and each `KeyboardInterrupt` ends the session, also one that no
user has asked for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest
from _pytest.outcomes import OutcomeException

from pytest_llmdevice.errors import first_line, steers, tell_of_users
from pytest_llmdevice.plugin.failures import CheckFailed
from pytest_llmdevice.plugin.parametrize import cell_of


class Interruptions:
    """Knows whether a user has interrupted the process: by a signal, and not by an exception of that name."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None
        # Elsewhere signals cannot be looked at; where they are ignored, as in the background of a shell, none arrives.
        known = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None
        self._others = tell_of_users(lambda: self.seen or not known)
        if known and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._note)

    def close(self) -> None:
        """Leave the signal as it was found."""
        tell_of_users(self._others)
        # `==`: each access to a method makes another object.
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        self._before(number, frame)


class RaisedInItems:
    """The hooks around tests and fixtures in which something may be raised that pytest is not made for."""

    def __init__(self, config: pytest.Config) -> None:
        config.add_cleanup(Interruptions().close)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Keep what a fixture raised, as pytest does for an `Exception`, so that it is torn down for the next cell."""
        try:
            return (yield)
        except (Exception, OutcomeException):
            raise
        except BaseException as error:
            if not steers(error):
                fixturedef.cached_result = (None, fixturedef.cache_key(request), (error, error.__traceback__))  # type: ignore[arg-type]
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """End a setup, and no session, with a `KeyboardInterrupt` that is no user's."""
        return (yield from _of_no_user(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """The same for a test."""
        return (yield from _of_no_user(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """The same for a teardown, all of which is made."""
        for finalizers, _ in item.session._setupstate.stack.values():  # noqa: SLF001  # no other way in
            finalizers[:] = [each if isinstance(each, _Finalizer) else _Finalizer(each) for each in finalizers]
        return (yield from _of_no_user(item))


class _Finalizer:
    """One of pytest's, after which the others still run, whatever it raises."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __call__(self) -> None:
        try:
            self._function()
        except (Exception, OutcomeException):
            raise
        except BaseException as error:
            if steers(error):
                raise
            raise CheckFailed(f"{first_line(error)}, in a teardown") from error


def _of_no_user(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except KeyboardInterrupt as error:
        cell = cell_of(item)
        if cell is None or steers(error):
            raise
        raise CheckFailed(
            f"{cell.id}: KeyboardInterrupt was raised in {item.name}, and no user has interrupted"
        ) from error
