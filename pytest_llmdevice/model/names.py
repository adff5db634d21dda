"""Maps the names of a loaded model's tensors to their names in its architecture, and back.

A target may return its model inside a wrapper, and may have put layers of its own around the model's. The tensors of
the architecture then have longer names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_llmdevice.model.wrappers import core_with_path, join_name, wrapped_child

if TYPE_CHECKING:
    import torch
    from torch import nn


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of `model` under each of their names, as its modules have them.

    A class may give other names to those who ask it, as TransformerLens' bridge does.
    """
    from torch import nn

    # What is in no module is only what the class says.
    held = dict(nn.Module.named_parameters(model, remove_duplicate=False))
    return held or dict(model.named_parameters(remove_duplicate=False))


def buffers_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The same of its buffers."""
    from torch import nn

    held = dict(nn.Module.named_buffers(model, remove_duplicate=False))
    return held or dict(model.named_buffers(remove_duplicate=False))


@dataclass(frozen=True, slots=True)
class Part:
    """What a tensor of the loaded model is of one in the architecture.

    Attributes:
        architecture: the name of that tensor.
        rows: the first row of it in the loaded model's tensor, and the one behind its last; None for all rows. Query,
            key and value are often kept in one tensor.
        transposed: whether the loaded model keeps it transposed, as `nn.Linear` does with what GPT-2's `Conv1D` has.
    """

    architecture: str
    rows: tuple[int, int] | None = None
    transposed: bool = False

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as the architecture has it, without a copy."""
        if self.rows is not None:
            tensor = tensor[slice(*self.rows)]
        return tensor.T if self.transposed else tensor

    @property
    def whole(self) -> bool:
        """Whether it is the tensor as it is."""
        return self.rows is None and not self.transposed


Known = Mapping[str, tuple[Part, ...]]
"""Names of tensors in the loaded model -> what they are in the architecture."""


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """One parameter or buffer of a loaded model.

    Attributes:
        name: its name in the loaded model.
        architecture: its name in the architecture; None for a tensor that the architecture does not have, such as an
            adapter's.
        role: `"parameter"` or `"buffer"`.
        tensor: the tensor itself.
        part: where it is only a part of the architecture's, or another form of it, which; None where it is the same.
    """

    name: str
    architecture: str | None
    role: str
    tensor: torch.Tensor
    part: Part | None = None


class TensorNames:
    """The names of a loaded model's modules and tensors, in the model and in its architecture.

    Args:
        model: the model that a target returned.
        plain: a model of the architecture without wrappers, to recognize tensors inside wrappers of unknown classes
            (a user's adapter: `q_proj.inner.weight` for `q_proj.weight`); None to recognize known wrappers only.

        known: what tensors of the loaded model are in the architecture, where they have names of their own.

    Attributes:
        prefix: the name of the core in the model, empty if the model is no wrapper.
        core: the model of the architecture.
        modules: name of a module in the loaded model -> its name in the architecture, None for extra modules.
        tensors: every parameter and buffer, once for each of its names.
    """

    def __init__(self, model: nn.Module, plain: nn.Module | None = None, known: Known = MappingProxyType({})) -> None:
        self.prefix, self.core = core_with_path(model)
        self.modules: dict[str, str | None] = {}
        self._modules: dict[str, nn.Module] = {}
        self._walk(model, "", None, self.prefix, frozenset())
        self.tensors = tuple(self._tensors(plain, known))

    def architecture_name(self, name: str) -> str | None:
        """The architecture's name of the tensor or module `name` of the loaded model; None for an extra one."""
        named = self._by_name.get(name)
        return named.architecture if named is not None else self.modules.get(name)

    def loaded_name(self, architecture: str) -> str:
        """The loaded model's name of the tensor `architecture`; the name that it would have, if it is missing."""
        named = self._by_architecture.get(architecture)
        return named.name if named is not None else join_name(self.prefix, architecture)

    def is_other(self, architecture: str) -> bool:
        """Whether the loaded model has the tensor `architecture` as a part of another one, or in another form."""
        named = self._by_architecture.get(architecture)
        return named is not None and named.part is not None

    def has(self, architecture: str) -> bool:
        """Whether the loaded model has the tensor `architecture`."""
        return architecture in self._by_architecture

    def module_name(self, architecture: str) -> str | None:
        """The loaded model's name of the module `architecture`, without the wrappers around it; None if missing."""
        return self._modules_by_architecture.get(architecture)

    @cached_property
    def _by_name(self) -> dict[str, NamedTensor]:
        return {named.name: named for named in self.tensors}

    @cached_property
    def _by_architecture(self) -> dict[str, NamedTensor]:
        tensors: dict[str, NamedTensor] = {}
        for named in self.tensors:
            if named.architecture is not None:
                tensors.setdefault(named.architecture, named)
        return tensors

    @cached_property
    def _modules_by_architecture(self) -> dict[str, str]:
        # A wrapper and the module in it have one name in the architecture; the inner one comes later and is kept.
        return {architecture: name for name, architecture in self.modules.items() if architecture is not None}

    def _walk(self, module: nn.Module, name: str, architecture: str | None, path: str, above: frozenset[int]) -> None:
        """Add the names of `module` and the modules in it; `path` is the rest of the path to the core."""
        if id(module) in above:
            return
        if architecture is None and module is self.core and not path:
            architecture = ""
        self.modules[name] = architecture
        self._modules[name] = module
        wrapped = wrapped_child(module)
        for key, child in module.named_children():
            below, rest = None, "."
            if architecture is None:
                # The child is on the path to the core, or outside it.
                rest = path[len(key) :].removeprefix(".") if f"{path}.".startswith(f"{key}.") else "."
            elif wrapped is None:
                below = join_name(architecture, key)
            elif key == wrapped:
                below = architecture
            self._walk(child, join_name(name, key), below, rest, above | {id(module)})

    def _tensors(self, plain: nn.Module | None, given: Known) -> Iterator[NamedTensor]:
        tensors = list(_module_tensors(self._modules, self.modules))
        wanted = _shapes(plain) if plain is not None else {}
        known = {named.architecture for named in tensors}
        hidden = {
            named.name: architecture
            for architecture, shape in wanted.items()
            if architecture not in known and (named := _hidden(architecture, shape, tensors, wanted)) is not None
        }
        same = {id(named.tensor): named.architecture for named in tensors if named.architecture is not None}
        same |= {
            id(named.tensor): given[named.name][0].architecture
            for named in tensors
            if named.name in given and given[named.name][0].whole
        }
        for own, parts in given.items():
            # Of a module that is several in the architecture, the first one stands for all.
            self.modules[own.rpartition(".")[0]] = parts[0].architecture.rpartition(".")[0]
        for named in tensors:
            if named.name in given:
                for part in given[named.name]:
                    yield NamedTensor(
                        named.name, part.architecture, named.role, named.tensor, None if part.whole else part
                    )
                continue
            architecture = hidden.get(named.name, named.architecture)
            if named.name in hidden:
                self.modules[named.name.rpartition(".")[0]] = hidden[named.name].rpartition(".")[0]
            elif wanted and architecture is not None and architecture not in wanted:
                architecture = None
            if architecture is None and same.get(id(named.tensor)) in wanted:
                # A second name of a tensor of the architecture, such as PEFT's `word_embeddings`.
                architecture = same[id(named.tensor)]
            yield NamedTensor(named.name, architecture, named.role, named.tensor)


def _module_tensors(modules: Mapping[str, nn.Module], names: Mapping[str, str | None]) -> Iterator[NamedTensor]:
    for path, module in modules.items():
        architecture = names[path]
        for role, named_tensors in (
            ("parameter", module.named_parameters(recurse=False, remove_duplicate=False)),
            ("buffer", module.named_buffers(recurse=False, remove_duplicate=False)),
        ):
            for key, tensor in named_tensors:
                own = (
                    None if architecture is None or wrapped_child(module) is not None else join_name(architecture, key)
                )
                yield NamedTensor(join_name(path, key), own, role, tensor)


def _shapes(plain: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(tensor.shape)
        for named_tensors in (
            plain.named_parameters(remove_duplicate=False),
            plain.named_buffers(remove_duplicate=False),
        )
        for name, tensor in named_tensors
    }


def _hidden(
    architecture: str, shape: tuple[int, ...], tensors: list[NamedTensor], wanted: Mapping[str, tuple[int, ...]]
) -> NamedTensor | None:
    """The tensor inside the module of `architecture` that has the same last name and shape, if there is only one.

    A packed tensor may have any shape.
    """
    owner, _, key = architecture.rpartition(".")
    fitting = [
        named
        for named in tensors
        if named.architecture is not None
        and named.architecture not in wanted
        and named.architecture.startswith(f"{owner}.")
        and named.architecture.rpartition(".")[2] == key
        and (tuple(named.tensor.shape) == shape or not named.tensor.is_floating_point())
    ]
    shortest = min((named.name.count(".") for named in fitting), default=0)
    nearest = [named for named in fitting if named.name.count(".") == shortest]
    return nearest[0] if len(nearest) == 1 else None
