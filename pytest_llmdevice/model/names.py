"""What a loaded model's tensors are called in its architecture: past wrappers, compiled modules and adapters.

A target may return its model inside `torch.nn.DataParallel`, `torch.compile`, PEFT or a class of its own, and may
have put layers of its own around the model's. The tensors of the architecture are still there, under longer names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

TRANSPARENT: Final[Mapping[str, tuple[str, ...]]] = {
    "DataParallel": ("module",),
    "DistributedDataParallel": ("module",),
    "FullyShardedDataParallel": ("_fsdp_wrapped_module",),
    "CheckpointWrapper": ("_checkpoint_wrapped_module",),
    "OptimizedModule": ("_orig_mod",),
    "AveragedModel": ("module",),
    "PeftModel": ("base_model",),
    "BaseTuner": ("model",),
    "BaseTunerLayer": ("base_layer",),
    "AuxiliaryTrainingWrapper": ("original_module", "token_adapter"),
    "ModulesToSaveWrapper": ("original_module",),
}
"""Classes of torch, accelerate and PEFT that stand for another module, and the attributes that may hold it."""


def inside(module: nn.Module) -> str | None:
    """The name of the child that `module` stands for; None for a module that stands for itself."""
    for base in type(module).__mro__:
        for name in TRANSPARENT.get(base.__name__, ()):
            # Not `getattr`: PEFT's wrappers hand on attributes of what is in them.
            if name in dict(module.named_children()):
                return name
    return None


def core(model: Any) -> Any:
    """The model of the architecture inside `model`, which may be a wrapper of any class; `model` itself if it is none.

    It is the outermost module of a transformers class. Without one, wrappers that are known are taken off, and
    holders that have nothing but one child.
    """
    return core_with_path(model)[1]


def core_with_path(model: Any) -> tuple[str, Any]:
    """The name of the `core` in `model`, and the core."""
    from torch import nn
    from transformers import PreTrainedModel

    if not isinstance(model, nn.Module):
        return "", model
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            above, _, key = name.rpartition(".")
            whole = model.get_submodule(above)
            return (above, whole) if _has_head(whole, key, module) else (name, module)
    path, found = "", model
    while (name := inside(found) or _only_child(found)) is not None:
        path, found = _join(path, name), found.get_submodule(name)
    return path, found


def _has_head(whole: nn.Module, key: str, body: Any) -> bool:
    """Whether `whole` is the model that its class for text would be: a transformers body under its name, and a head."""
    # Gemma 3's body calls itself `language_model` before transformers 5, and is called `model` all the same.
    if body.base_model is not body or key not in {body.base_model_prefix, "model"}:
        return False
    size = getattr(body.config, "vocab_size", None)
    heads = (child for name, child in whole.named_children() if name != key)
    weights = (getattr(head, "weight", None) for head in heads)
    return any(weight is not None and tuple(weight.shape[:1]) == (size,) for weight in weights)


def input_embedding(model: Any) -> Any:
    """The module that `model`, or what is inside it, says is its input embedding; None where none says so."""
    for one in (model, core(model), *(model.modules() if hasattr(model, "modules") else ())):
        with suppress(AttributeError, NotImplementedError):
            return one.get_input_embeddings()
    return None


def runnable(model: nn.Module) -> nn.Module:
    """`model` where its `forward` takes token ids by name, else the outermost module on the way to its core that does.

    A class of one's own around a model may have no `forward`, or one with arguments of its own.
    """
    from torch import nn

    # What has no `forward` at all, a function for instance, is run as it is.
    inherited = nn.Module.forward
    able = [one for one in _way(model) if getattr(type(one), "forward", inherited) is not inherited]
    for one in able:
        names, others = _arguments(one)
        if others or "input_ids" in names:
            return one
    return able[0] if able else model


def accepted(model: nn.Module) -> frozenset[str]:
    """The names that the `forward` of `model` takes, and where it hands others on, those of what is inside it."""
    found: set[str] = set()
    for one in _way(runnable(model)):
        names, others = _arguments(one)
        found |= names
        if not others:
            break
    return frozenset(found)


def _arguments(module: nn.Module) -> tuple[frozenset[str], bool]:
    """The named arguments of the `forward` of `module`'s class, and whether it takes any others by name."""
    found = inspect.signature(type(module).forward).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in found.values())
    return frozenset(found) - {"self"}, anything


def generating(model: nn.Module) -> Any:
    """`model` where its `generate` takes options, else the outermost module on the way to its core whose does.

    A class of one's own around a model may have none, or one with arguments of its own.
    """
    return next((one for one in _way(model) if _takes_options(getattr(one, "generate", None))), model)


def _takes_options(function: Any) -> bool:
    if not callable(function):
        return False
    found = inspect.signature(function).parameters.values()
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in found)


def _way(model: nn.Module) -> Iterator[nn.Module]:
    yield model
    path = core_with_path(model)[0]
    for end, _ in enumerate(path, 1):
        if end == len(path) or path[end] == ".":
            yield model.get_submodule(path[:end])


def configuration_of(model: Any) -> Any:
    """The `config` of `model` or of its core, None where neither has one."""
    own = getattr(model, "config", None)
    return own if own is not None else getattr(core(model), "config", None)


@dataclass(frozen=True, slots=True)
class Named:
    """One parameter or buffer of a loaded model.

    Attributes:
        name: in the loaded model.
        architecture: in the architecture; None for what the architecture does not have, such as an adapter.
        role: `"parameter"` or `"buffer"`.
        tensor: the tensor itself.
    """

    name: str
    architecture: str | None
    role: str
    tensor: torch.Tensor


class Names:
    """The names of a loaded model's modules and tensors, in both ways.

    Args:
        model: what a target returned.
        bones: the architecture itself, which finds the tensors that a wrapper of an unknown class holds
            (an adapter of one's own: `q_proj.inner.weight` for `q_proj.weight`); None for known wrappers only.

    Attributes:
        prefix: the name of the core in the model, empty when the model is no wrapper.
        core: the model of the architecture.
        modules: the architecture's name of each module, by its name in the loaded model; None for extras.
        tensors: every parameter and buffer, under each of its names.
    """

    def __init__(self, model: nn.Module, bones: nn.Module | None = None) -> None:
        self.prefix, self.core = core_with_path(model)
        self.modules: dict[str, str | None] = {}
        self._found: dict[str, nn.Module] = {}
        self._walk(model, "", None, self.prefix, frozenset())
        self.tensors = tuple(self._tensors(bones))

    def architecture_name(self, name: str) -> str | None:
        """What the architecture calls the tensor or module `name` of the loaded model; None for an extra."""
        found = self._by_name.get(name)
        return found.architecture if found is not None else self.modules.get(name)

    def loaded_name(self, architecture: str) -> str:
        """What the loaded model calls the tensor `architecture`; what it would be called, where there is none."""
        found = self._by_architecture.get(architecture)
        return found.name if found is not None else _join(self.prefix, architecture)

    def module_name(self, architecture: str) -> str | None:
        """What the loaded model calls the module `architecture`, the innermost that stands for it; None without one."""
        return self._modules_by_architecture.get(architecture)

    @cached_property
    def _by_name(self) -> dict[str, Named]:
        return {named.name: named for named in self.tensors}

    @cached_property
    def _by_architecture(self) -> dict[str, Named]:
        found: dict[str, Named] = {}
        for named in self.tensors:
            if named.architecture is not None:
                found.setdefault(named.architecture, named)
        return found

    @cached_property
    def _modules_by_architecture(self) -> dict[str, str]:
        # Of a wrapper and what it stands for, both of one name, the inner one comes later.
        return {architecture: name for name, architecture in self.modules.items() if architecture is not None}

    def _walk(self, module: nn.Module, name: str, architecture: str | None, way: str, above: frozenset[int]) -> None:
        """Note `module` and what is below it; `way` is what is left of the path to the core."""
        if id(module) in above:
            return
        if architecture is None and module is self.core and not way:
            architecture = ""
        self.modules[name] = architecture
        self._found[name] = module
        transparent = inside(module)
        for key, child in module.named_children():
            below, rest = None, "."
            if architecture is None:
                # On the way to the core, or beside it.
                rest = way[len(key) :].removeprefix(".") if f"{way}.".startswith(f"{key}.") else "."
            elif transparent is None:
                below = _join(architecture, key)
            elif key == transparent:
                below = architecture
            self._walk(child, _join(name, key), below, rest, above | {id(module)})

    def _tensors(self, bones: nn.Module | None) -> Iterator[Named]:
        found = list(_held(self._found, self.modules))
        wanted = _shapes(bones) if bones is not None else {}
        known = {named.architecture for named in found}
        hidden = {
            named.name: architecture
            for architecture, shape in wanted.items()
            if architecture not in known and (named := _hidden(architecture, shape, found, wanted)) is not None
        }
        same = {id(named.tensor): named.architecture for named in found if named.architecture is not None}
        for named in found:
            architecture = hidden.get(named.name, named.architecture)
            if named.name in hidden:
                self.modules[named.name.rpartition(".")[0]] = hidden[named.name].rpartition(".")[0]
            elif wanted and architecture is not None and architecture not in wanted:
                architecture = None
            if architecture is None and same.get(id(named.tensor)) in wanted:
                # Another name for a tensor of the architecture: PEFT's `word_embeddings`.
                architecture = same[id(named.tensor)]
            yield Named(named.name, architecture, named.role, named.tensor)


def _held(modules: Mapping[str, nn.Module], names: Mapping[str, str | None]) -> Iterator[Named]:
    for path, module in modules.items():
        architecture = names[path]
        for role, held in (
            ("parameter", module.named_parameters(recurse=False, remove_duplicate=False)),
            ("buffer", module.named_buffers(recurse=False, remove_duplicate=False)),
        ):
            for key, tensor in held:
                own = None if architecture is None or inside(module) is not None else _join(architecture, key)
                yield Named(_join(path, key), own, role, tensor)


def _shapes(bones: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(tensor.shape)
        for held in (bones.named_parameters(remove_duplicate=False), bones.named_buffers(remove_duplicate=False))
        for name, tensor in held
    }


def _hidden(
    architecture: str, shape: tuple[int, ...], found: list[Named], wanted: Mapping[str, tuple[int, ...]]
) -> Named | None:
    """The tensor below the module of `architecture` that can only be it: its last name, its shape or a packed one."""
    owner, _, key = architecture.rpartition(".")
    fitting = [
        named
        for named in found
        if named.architecture is not None
        and named.architecture not in wanted
        and named.architecture.startswith(f"{owner}.")
        and named.architecture.rpartition(".")[2] == key
        and (tuple(named.tensor.shape) == shape or not named.tensor.is_floating_point())
    ]
    shortest = min((named.name.count(".") for named in fitting), default=0)
    nearest = [named for named in fitting if named.name.count(".") == shortest]
    return nearest[0] if len(nearest) == 1 else None


def _only_child(module: nn.Module) -> str | None:
    """The name of the one thing that `module` holds, if that is a module and `module` does nothing itself."""
    from torch import nn

    if type(module).forward is not nn.Module.forward or isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return None
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    names = [name for name, _ in module.named_children()]
    return names[0] if len(names) == 1 and not own else None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key
