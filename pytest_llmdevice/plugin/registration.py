"""Asks plugins for what they add to the registry of a run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.registry import HOOK, Registry, built_in, in_force

if TYPE_CHECKING:
    import pytest


class Registration:
    """The registry of a run, in force until the run ends."""

    def __init__(self, config: pytest.Config) -> None:
        """Load what is built in, then what each plugin adds.

        Raises:
            ConfigurationError: a plugin adds what cannot be added; the message names plugin, hook and field.
        """
        self._config = config
        self.registry = built_in()
        self._asked: set[int] = set()
        for implementation in self._implementations():
            self._asked.add(id(implementation))
            self.registry.load(implementation.plugin_name, _Register(implementation))
        context = ExitStack()
        context.enter_context(in_force(self.registry))
        config.add_cleanup(context.close)

    def refuse_late_ones(self) -> None:
        """Make sure that no plugin was read after the registry was made.

        Raises:
            ConfigurationError: one was, so that what it adds is missing.
        """
        for implementation in self._implementations():
            if id(implementation) not in self._asked:
                raise ConfigurationError(
                    f"plugin {implementation.plugin_name}, hook {HOOK}: it was read after the matrix; move the "
                    f"function to the conftest.py of {self._config.rootpath}, or name its folder on the command line"
                )

    def _implementations(self) -> list[Any]:
        # One by one, and not as a call of the hook: an error has to name the plugin.
        hook = getattr(self._config.hook, HOOK)
        return list(reversed(hook.get_hookimpls()))


class _Register:
    """A hook implementation as a function of the registry, with the arguments that it asks for."""

    def __init__(self, implementation: Any) -> None:
        self._implementation = implementation
        self.__module__ = implementation.function.__module__
        self.__code__ = getattr(implementation.function, "__code__", None)

    def __call__(self, registry: Registry) -> None:
        wanted = self._implementation.argnames
        self._implementation.function(*((registry,) if "registry" in wanted else ()))
