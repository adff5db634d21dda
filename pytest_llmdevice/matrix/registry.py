"""Holds everything that has a name in a matrix or a report, and which plugin brought it.

There is one table for each kind of entry: checks, strategies, quantizations, model families, traits of checkpoints,
device kinds, simulation profiles and hints. What the package itself offers is registered in the same way as what a
plugin adds, by a function `pytest_llm_register(registry)`; every list of names, every message with the valid names, the
reference pages and the rules about what can run are made from the tables.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from pytest_llmdevice.errors import ConfigurationError, message_of

HOOK: Final = "pytest_llm_register"
"""The hook, and the name of the function, by which entries are registered."""

ITSELF: Final = "pytest-llmdevice"
"""The plugin that the built-in entries are registered for."""

OWN: Final = ("pytest_llmdevice.matrix.own_quantizations", "pytest_llmdevice.matrix.own_cards")
"""What reads the quantizations and the cards that a matrix file describes."""

MATRIX_FILE: Final = ".toml"

BUILT_IN: Final = "pytest_llmdevice.checks.builtin"
"""The module that registers them. Loaded by its name as any plugin is: it imports what is above this package."""

CHOICES: Final = "choices"
"""The key in the metadata of an entry's field under which the values are that it may have."""

TABLES: Final = ("check", "strategy", "quantization", "family", "trait", "device kind", "simulation profile", "hint")

Loader = Callable[["Registry"], object]


class Source(NamedTuple):
    """Where the function `pytest_llm_register` of a plugin is, for another process to find it.

    Attributes:
        plugin: the plugin's name.
        module: the name of the function's module.
        file: the module's file, empty where it has none.
    """

    plugin: str
    module: str
    file: str


@runtime_checkable
class Entry(Protocol):
    """What every entry has. Each class of entries is a frozen dataclass.

    Attributes:
        table: which table entries of the class are in, one of `TABLES`.
        name: what the entry is called, unique within its table.
    """

    table: ClassVar[str]

    @property
    def name(self) -> str:
        """The name."""


E = TypeVar("E", bound=Entry)

_AXIS_VALUE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NAMES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    # A check is the name of a test, and the others are parts of a cell's id, which dots join.
    "check": (re.compile(r"[a-z][a-z0-9_]*"), "lower-case letters, digits and underscores, as in 'cache'"),
    **dict.fromkeys(
        ("strategy", "quantization", "family", "trait", "device kind", "simulation profile", "hint"),
        (_AXIS_VALUE, "letters, digits, hyphens and underscores, as in 'nf4-double'"),
    ),
}


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


_FITS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "str": (lambda value: isinstance(value, str), "text"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), "a number"),
    "tuple[str, ...]": (_texts, "a tuple of texts"),
    "tuple[Rule, ...]": (
        lambda value: isinstance(value, tuple) and all(callable(getattr(rule, "reason", None)) for rule in value),
        "a tuple of rules",
    ),
}
"""What a field of an entry may hold, by its annotation."""


class Registry:
    """All tables. `current()` is the one in force."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Entry]] = {table: {} for table in TABLES}
        self._plugins: dict[tuple[str, str], str] = {}
        self._plugin = ITSELF
        self._sources: dict[str, Source] = {}

    def add(self, *entries: Entry) -> None:
        """Register `entries`. A check goes behind the one that its `after` names, all else to the end of its table.

        Raises:
            ConfigurationError: an entry is none, or malformed, or its name is taken; the message names the plugin,
                the hook and the field.
        """
        for entry in entries:
            table = getattr(type(entry), "table", None)
            if table not in self._tables:
                raise self._refused(f"{entry!r} is no entry: register a {', a '.join(TABLES)}")
            self._look_at(table, entry)
            names = self._tables[table]
            if entry.name in names:
                taken = self._plugins[table, entry.name]
                raise self._refused(f"{table} {entry.name!r}: field 'name': {taken} has registered one of this name")
            self._plugins[table, entry.name] = self._plugin
            after = getattr(entry, "after", "")
            if after and after not in names:
                raise self._refused(f"{table} {entry.name!r}: field 'after': there is no {table} {after!r} before it")
            self._tables[table] = _inserted(names, entry, after)

    def load(self, plugin: str, register: Loader, *, file: str = "") -> None:
        """Have `register`, a function of the plugin called `plugin`, add its entries.

        Args:
            plugin: who registers them.
            register: is given this registry.
            file: the matrix file that they are in; left out for the file of the function.

        Raises:
            ConfigurationError: it adds what cannot be added, or raises.
        """
        before, self._plugin = self._plugin, plugin
        file = file or getattr(getattr(register, "__code__", None), "co_filename", "")
        self._sources[plugin] = Source(plugin, register.__module__, file)
        try:
            register(self)
        except ConfigurationError:
            raise
        except Exception as error:
            raise self._refused(f"{type(error).__name__}: {message_of(error)}") from error
        finally:
            self._plugin = before

    def of(self, kind: type[E]) -> Mapping[str, E]:
        """The entries of class `kind` by name, in their order."""
        return MappingProxyType(self._tables[kind.table])  # type: ignore[arg-type]

    def names(self, table: str) -> tuple[str, ...]:
        """The names in `table`, in their order."""
        return tuple(self._tables[table])

    def get(self, table: str, name: str) -> Any:
        """The entry `name` of `table`; None where there is none."""
        return self._tables[table].get(name)

    def entries(self, table: str) -> tuple[Any, ...]:
        """The entries of `table`, in their order."""
        return tuple(self._tables[table].values())

    def plugin_of(self, entry: Entry) -> str:
        """The name of the plugin that registered `entry`."""
        return self._plugins[type(entry).table, entry.name]

    def sources(self, *tables: str) -> list[Source]:
        """Where the plugins are that have registered something in `tables`, the package itself left out."""
        plugins = dict.fromkeys(plugin for (table, _), plugin in self._plugins.items() if table in tables)
        return [self._sources[plugin] for plugin in plugins if plugin != ITSELF]

    def load_sources(self, sources: Iterable[Sequence[str]]) -> None:
        """Load the plugins of another process.

        Raises:
            ConfigurationError: one cannot be imported, or adds what cannot be added.
        """
        for plugin, module, file in sources:
            if file.endswith(MATRIX_FILE):
                for reader in OWN:
                    import_module(reader).register_file(Path(file), self)
                continue
            try:
                register = getattr(_imported(module, file), HOOK)
            except Exception as error:
                raise ConfigurationError(
                    f"plugin {plugin}: {module} cannot be imported outside of pytest: {type(error).__name__}: "
                    f"{message_of(error)}"
                ) from error
            self.load(plugin, register)

    def _look_at(self, table: str, entry: Entry) -> None:
        pattern, allowed = _NAMES[table]
        if not pattern.fullmatch(str(entry.name)):
            raise self._refused(f"{table} {entry.name!r}: field 'name': must be {allowed}")
        for field in fields(entry):  # type: ignore[arg-type]  # entries are dataclasses
            value, annotation = getattr(entry, field.name), str(field.type)
            if choices := field.metadata.get(CHOICES):
                several = annotation.startswith("tuple")
                values = value if several and isinstance(value, tuple) else (value,)
                fits = isinstance(value, tuple) >= several and all(item in choices for item in values)
                wanted = f"{'a tuple with some' if several else 'one'} of {', '.join(map(repr, choices))}"
            elif annotation.startswith("Callable"):
                fits, wanted = callable(value), "a function"
            elif annotation in _FITS:
                test, wanted = _FITS[annotation]
                fits = test(value)
            else:
                continue
            if not fits:
                raise self._refused(f"{table} {entry.name!r}: field {field.name!r}: must be {wanted}, not {value!r}")

    def _refused(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"plugin {self._plugin}, hook {HOOK}: {problem}")


def _imported(name: str, file: str) -> ModuleType:
    """The module called `name`, from `file` where it is on no path, as a conftest is."""
    try:
        module = import_module(name)
    except ModuleNotFoundError:
        module = None
    if module is not None and (not file or getattr(module, "__file__", None) == file):
        return module
    spec = importlib.util.spec_from_file_location(f"llmdevice_plugin_{name}", file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _inserted(names: Mapping[str, Entry], entry: Entry, after: str) -> dict[str, Entry]:
    if not after:
        return {**names, entry.name: entry}
    result: dict[str, Entry] = {}
    for name, present in names.items():
        result[name] = present
        if name == after:
            result[entry.name] = entry
    return result


_in_force: list[Registry] = []


def built_in() -> Registry:
    """A registry with what the package itself offers."""
    registry = Registry()
    registry.load(ITSELF, getattr(import_module(BUILT_IN), HOOK))
    return registry


def current() -> Registry:
    """The registry in force: that of the innermost `in_force`, else the built-in one, made when it is first needed."""
    if not _in_force:
        _in_force.append(built_in())
    return _in_force[-1]


@contextmanager
def in_force(registry: Registry) -> Iterator[Registry]:
    """Have `current()` give `registry` while the context lasts."""
    current()
    _in_force.append(registry)
    try:
        yield registry
    finally:
        _in_force.remove(registry)
