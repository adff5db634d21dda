"""Finds the architecture's model inside wrappers, compiled modules and adapters, and the modules to run.

A target may return its model inside `torch.nn.DataParallel`, `torch.compile`, PEFT or a class of its own. The model
of the architecture inside it is called its core.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.settings import vocabulary_size

if TYPE_CHECKING:
    from torch import nn


WRAPPERS: Final[Mapping[str, tuple[str, ...]]] = {
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
"""Wrapper classes of torch, accelerate and PEFT -> the attributes that may hold the wrapped module."""


def wrapped_child(module: nn.Module) -> str | None:
    """The name of the child that the wrapper `module` wraps; None if `module` is no known wrapper."""
    for base in type(module).__mro__:
        for name in WRAPPERS.get(base.__name__, ()):
            # Not `getattr`: PEFT's wrappers forward attributes of the modules in them.
            if name in dict(module.named_children()):
                return name
    return None


def core(model: Any) -> Any:
    """The model of the architecture inside `model`, which may be a wrapper of any class; else `model` itself.

    It is the outermost module of a transformers class. Without one, known wrappers are removed, and modules that do
    nothing but hold one child.
    """
    return core_with_path(model)[1]


def core_with_path(model: Any) -> tuple[str, Any]:
    """The name of the core in `model`, empty if it is `model` itself, and the core; see `core`."""
    from torch import nn
    from transformers import PreTrainedModel

    if not isinstance(model, nn.Module):
        return "", model
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            above, _, key = name.rpartition(".")
            whole = model.get_submodule(above)
            return (above, whole) if _has_head(whole, key, module) else (name, module)
    path, module = "", model
    while (name := wrapped_child(module) or _only_child(module)) is not None:
        path, module = join_name(path, name), module.get_submodule(name)
    return path, module


def _has_head(whole: nn.Module, key: str, body: Any) -> bool:
    """Whether `whole` is built like a model for text: a transformers body under its usual name, and a head."""
    # Before transformers 5, Gemma 3's body has the prefix `language_model`, but the attribute is called `model`.
    if body.base_model is not body or key not in {body.base_model_prefix, "model"}:
        return False
    size = vocabulary_size(body.config)
    heads = (child for name, child in whole.named_children() if name != key)
    weights = (getattr(head, "weight", None) for head in heads)
    return any(weight is not None and tuple(weight.shape[:1]) == (size,) for weight in weights)


def is_of_transformers(model: Any) -> bool:
    """Whether the core of `model` is a model of transformers, or a module around one; so is what is no module."""
    from torch import nn
    from transformers import PreTrainedModel

    inner = core(model)
    return not isinstance(inner, nn.Module) or any(isinstance(module, PreTrainedModel) for module in inner.modules())


def input_embedding(model: Any) -> Any:
    """What `get_input_embeddings` of `model`, its core or a module in it returns; else the first `nn.Embedding` in it.

    None if there is none either.
    """
    from torch import nn

    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    for module in (model, core(model), *modules):
        with suppress(AttributeError, NotImplementedError):
            return module.get_input_embeddings()
    return next((module for module in modules if isinstance(module, nn.Embedding)), None)


def runnable_module(model: nn.Module) -> nn.Module:
    """The outermost module on the path from `model` to its core whose `forward` takes `input_ids` by name.

    A user's wrapper class may have no `forward`, or one with other arguments.
    """
    from torch import nn

    # An object without `forward`, such as a function, is called itself.
    inherited = nn.Module.forward
    modules = [
        module for module in _path_to_core(model) if getattr(type(module), "forward", inherited) is not inherited
    ]
    for module in modules:
        names, takes_any = forward_arguments(module)
        if takes_any or "input_ids" in names:
            return module
    return modules[0] if modules else model


def accepted_arguments(model: nn.Module) -> frozenset[str]:
    """The argument names that `model` accepts; a wrapper with `**kwargs` also accepts those of the wrapped module."""
    accepted: set[str] = set()
    for module in _path_to_core(runnable_module(model)):
        names, takes_any = forward_arguments(module)
        accepted |= set(names)
        if not takes_any:
            break
    return frozenset(accepted)


def forward_arguments(module: nn.Module) -> tuple[tuple[str, ...], bool]:
    """The argument names of the `forward` of `module`'s class, in their order, and whether it takes `**kwargs`."""
    parameters = inspect.signature(type(module).forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return tuple(name for name in parameters if name != "self"), takes_any


def required_argument(module: nn.Module) -> str | None:
    """The name of the first argument of the `forward` of `module`'s class, if it has no default; None else."""
    parameters = [each for each in inspect.signature(type(module).forward).parameters.values() if each.name != "self"]
    first = parameters[0] if parameters else None
    named = first is not None and first.kind in (first.POSITIONAL_OR_KEYWORD, first.KEYWORD_ONLY)
    return first.name if first is not None and named and first.default is first.empty else None


def generating_module(model: nn.Module) -> Any:
    """The outermost module on the path from `model` to its core whose `generate` takes options (`**kwargs`).

    A user's wrapper class may have no `generate`, or one with other arguments. `model` itself if there is none.
    """
    return next((module for module in _path_to_core(model) if _takes_options(getattr(module, "generate", None))), model)


def _takes_options(function: Any) -> bool:
    if not callable(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _path_to_core(model: nn.Module) -> Iterator[nn.Module]:
    yield model
    path = core_with_path(model)[0]
    for end, _ in enumerate(path, 1):
        if end == len(path) or path[end] == ".":
            yield model.get_submodule(path[:end])


def configuration_of(model: Any) -> Any:
    """The `config` of `model` or of its core; None if neither has one."""
    own = getattr(model, "config", None)
    return own if own is not None else getattr(core(model), "config", None)


def _only_child(module: nn.Module) -> str | None:
    """The name of the only child of `module`, if `module` has no `forward` and no tensors of its own."""
    from torch import nn

    if type(module).forward is not nn.Module.forward or isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return None
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    names = [name for name, _ in module.named_children()]
    return names[0] if len(names) == 1 and not own else None


def join_name(path: str, key: str) -> str:
    """The dotted name of `key` in `path`; either may be empty."""
    return f"{path}.{key}" if path and key else path or key
