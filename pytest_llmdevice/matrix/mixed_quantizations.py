"""Makes one quantization of several, in which each module has its own: the `[[mixed]]` of a matrix file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pytest_llmdevice.matrix.axes import EVERY, Quantization
from pytest_llmdevice.matrix.axis_values import Document, invalid
from pytest_llmdevice.matrix.functions import Configuration, dotted
from pytest_llmdevice.matrix.registry import Registry
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.matrix.vocabulary import DENSE


class MixedQuantization(Document):
    """A quantization of which each module has its own.

    Attributes:
        name: what cells call it.
        description: what it does, a phrase.
        modules: pattern of modules -> their quantization, or `"none"` for dense ones; the first pattern that is the
            name of a module or the end of it counts. `"*"`, at the end, is for all layers that are packed where nothing
            else is said; the head and embeddings have to be named. A module that none fits is dense.
        config: what makes the `quantization_config` for `from_pretrained`: a class or function that is called with
            `arguments`, or with the cell where there are none. Left out where the target packs the layers itself; for
            quantizations that are all torchao's, the built-in loader makes one.
        arguments: keywords for `config`.
        logits_error: the relative error of the logits that it adds to that of the dtype; left out, the largest of those
            that are mixed.
        unsaved: why such a model cannot be saved; left out where it can.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    description: str = "several quantizations, by module"
    modules: Annotated[dict[str, str], Field(min_length=1, max_length=1000)]
    config: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    logits_error: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    unsaved: str = ""

    @field_validator("config")
    @classmethod
    def _function(cls, value: str | None) -> str | None:
        return dotted(value)

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if EVERY in list(self.modules)[:-1]:
            raise invalid(f"{EVERY!r} fits every module: put it behind the other patterns of 'modules'")
        if set(self.modules.values()) == {DENSE}:
            raise invalid("leaves every module dense: give at least one its quantization")
        if self.arguments and self.config is None:
            raise invalid("has 'arguments' and no 'config' that takes them")
        return self

    def functions(self) -> Iterator[tuple[str, str]]:
        """The keys that name a function, with what they name."""
        if self.config is not None:
            yield "config", self.config

    def problem(self, registry: Registry) -> str:
        """What is wrong with the quantizations that are mixed; empty for nothing."""
        known = registry.of(Quantization)
        for pattern, name in self.modules.items():
            if name not in known:
                return f"modules, {pattern!r}: {unknown('quantization', name, known)}"
            if known[name].modules:
                return f"modules, {pattern!r}: {name!r} is mixed itself"
        return ""

    def entry(self, folder: Path, registry: Registry) -> Quantization:
        """What is registered of it; `folder` is that of the matrix file."""
        known = registry.of(Quantization)
        entries = [known[name] for name in dict.fromkeys(self.modules.values()) if name != DENSE]
        library, install = entries[0].library, entries[0].install
        if any(entry.library != library for entry in entries):
            library = install = ""
        return Quantization(
            self.name,
            self.description,
            library,
            install,
            Configuration(self.config, self.arguments, folder),
            MappingProxyType({}),
            layer_class="",
            parameter_class="",
            storage_dtype="",
            smoke_test=_worst(tuple(entry.smoke_test for entry in entries)),
            packing_error=max(entry.packing_error for entry in entries),
            logits_error=self.logits_error or max(entry.logits_error for entry in entries),
            batch_error=max(entry.batch_error for entry in entries),
            rules=tuple({rule.name: rule for entry in entries for rule in entry.rules}.values()),
            layers=tuple(dict.fromkeys(layer for entry in entries for layer in entry.layers)),
            dtypes=_common([entry.dtypes for entry in entries]),
            kinds=_common([entry.kinds for entry in entries]),
            unsaved=self.unsaved or next((entry.unsaved for entry in entries if entry.unsaved), ""),
            modules=tuple(self.modules.items()),
        )


def _worst(tests: Sequence[Callable[[Any, str], Any]]) -> Callable[[Any, str], Any]:
    """Makes all of `tests`, and gives the one that comes nearest to its limit, or is furthest beyond."""

    def smoke_test(device: Any, dtype: str) -> tuple[Any, Any, float]:
        made: list[tuple[Any, Any, float]] = [test(device, dtype) for test in tests]

        def of_its_limit(one: tuple[Any, Any, float]) -> float:
            result, exact, limit = one
            return float((result.double().cpu() - exact).norm() / exact.norm()) / limit

        return max(made, key=of_its_limit)

    return smoke_test


def _common(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all allow; an empty one allows everything."""
    said = [each for each in values if each]
    return reduce(lambda some, others: tuple(one for one in some if one in others), said) if said else ()
