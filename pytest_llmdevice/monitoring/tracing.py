"""What a target hands to its model, seen before transformers or accelerate move it to where it belongs.

`generate` of transformers 5 moves inputs to the model's device without a word, and the hooks of a dispatched model do
so in `forward`: a target that leaves its inputs on the CPU works with one version and fails with another.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.device_map import execution_device
from pytest_llmdevice.model.kv_cache import layers_of, length_of
from pytest_llmdevice.model.names import input_embedding
from pytest_llmdevice.monitoring.trace import Call, Passage, Trace, leaves, seen
from pytest_llmdevice.monitoring.warnings import warned

if TYPE_CHECKING:
    import torch
    from torch import nn

CACHES: Final = ("past_key_values", "past_key_value", "layer_past", "cache_params", "cache")
"""Names under which a cache comes along."""

CALLS: Final = 256
"""Calls that are noted: an own decoding loop makes one for each token."""


@contextmanager
def traced(model: nn.Module) -> Iterator[Trace]:
    """Note what is handed to `model`, its parts and their `generate` while the context lasts; see `Trace`."""
    observer = _Observer(model)
    try:
        with warned() as observer.trace.warnings:
            observer.attach()
            yield observer.trace
    finally:
        observer.detach()


class _Observer:
    """Hooks on every module. The stack holds the calls that are under way, so that the target's own are told apart."""

    def __init__(self, model: nn.Module) -> None:
        self.trace = Trace()
        self.model = model
        self.stack: list[int] = []
        self.inner: set[tuple[str, str]] = set()
        self.names: dict[int, str] = {}
        self.modules: dict[int, nn.Module] = {}
        for name, module in model.named_modules():
            self.names[id(module)], self.modules[id(module)] = name, module
        self.whole = takes_prompt(model)
        self.handles: list[Any] = []
        self.generates: list[tuple[Any, Any]] = []
        self.types = _device_types(model)
        self.made = 0

    def attach(self) -> None:
        embedding = input_embedding(self.model)
        self.trace.home = execution_device(embedding) if embedding is not None else None
        for module in self.modules.values():
            self.handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True, prepend=True))
            self.handles.append(module.register_forward_hook(self.after, always_call=True))
            inner = getattr(module, "generate", None) if _generates(module) else None
            if callable(inner):
                self.generates.append((module, vars(module).get("generate")))
                whole: Any = module
                whole.generate = self.noting(module, inner)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        for module, own in self.generates:
            if own is None:
                vars(module).pop("generate", None)
            else:
                module.generate = own

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if _compiling():
            # What runs compiled is not looked at; that it ran is.
            self.trace.compiled = True
            return
        outer = not self.stack
        self.stack.append(id(module))
        name = self.names[id(module)]
        if module.training:
            self.trace.training[name] = None
        passage = self.trace.modules.get(name)
        prompt = id(module) in self.whole
        if passage is not None and not prompt:
            passage.calls += 1
            return
        named = _named(type(module).forward, args, kwargs, "input_ids" if prompt else "")
        if passage is None:
            passage = Passage(_described(named))
            self.trace.modules[name] = passage
            self.look_at_autocast(name)
        passage.calls += 1
        if prompt:
            self.call("forward", name, named, outer=outer)

    def after(self, module: nn.Module, _: Any, output: Any) -> None:
        # After an exception before our own hook came to run, there is nothing of this module on the stack.
        if _compiling() or id(module) not in self.stack:
            return
        while self.stack.pop() != id(module):
            pass
        if self.trace.first_pass is None and getattr(output, "logits", None) is not None:
            self.trace.first_pass = time.perf_counter()
        passage = self.trace.modules.get(self.names[id(module)])
        if passage is not None and not passage.finished and output is not None:
            passage.finished = True
            passage.outputs = _described({"output": output})

    def noting(self, module: nn.Module, inner: Callable[..., Any]) -> Callable[..., Any]:
        name = self.names[id(module)]

        @wraps(inner)
        def generate(*args: Any, **kwargs: Any) -> Any:
            named = _named(inner, args, kwargs, "inputs")
            self.call("generate", name, named, outer=not self.stack)
            mark = len(self.stack)
            self.stack.append(0)
            try:
                return inner(*args, **kwargs)
            finally:
                del self.stack[mark:]

        return generate

    def call(self, function: str, name: str, named: Mapping[str, Any], *, outer: bool) -> None:
        """Note a call of the target's, and the first call of each module that follows from it."""
        if outer:
            self.made += 1
            self.inner.clear()
            self.look_at_autocast(name)
        past = next((named[key] for key in CACHES if named.get(key) is not None), None)
        self.look_at_cache(past)
        if len(self.trace.calls) >= CALLS or (not outer and (function, name) in self.inner):
            return
        self.inner.add((function, name))
        tensors = _described({key: value for key, value in named.items() if key not in CACHES}, values=True)
        self.trace.calls.append(Call(function, name, outer, tensors, length_of(past), self.made))

    def look_at_cache(self, past: Any) -> None:
        if past is None:
            return
        self.trace.offloaded |= bool(getattr(past, "offloading", False)) or "Offload" in type(past).__name__
        for layer, kind, tensor in layers_of(past):
            key = (layer, kind, tensor.device, tensor.dtype)
            if tensor.numel() and key not in self.trace.caches:
                self.trace.caches[key] = None
                half = held_by(tensor)
                if half is not None:
                    self.trace.coarse[layer, kind, half] = None

    def look_at_autocast(self, name: str) -> None:
        import torch

        for kind in self.types:
            if torch.is_autocast_enabled(kind):
                self.trace.autocast.setdefault((kind, torch.get_autocast_dtype(kind)), name)


def held_by(tensor: torch.Tensor) -> torch.dtype | None:
    """The half that holds every number of a float32 `tensor` exactly; None of other tensors, and of zeros."""
    import torch

    if tensor.dtype != torch.float32 or tensor.is_meta:
        return None
    for half in (torch.bfloat16, torch.float16):
        if bool((tensor.to(half).float() == tensor).all()) and bool(tensor.any()):
            return half
    return None


def takes_prompt(model: Any) -> set[int]:
    """The ids of the modules that take the prompt: the input embedding and everything it is in."""
    embedding = input_embedding(model)
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is embedding]
    found = {id(model)}
    for name in names:
        parts = name.split(".")
        found |= {id(model.get_submodule(".".join(parts[:end]))) for end in range(len(parts) + 1)}
    return found


def _device_types(model: nn.Module) -> tuple[str, ...]:
    kinds = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} | {"cpu"}
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    kinds |= {execution_device(module).type for module, hook in zip(model.modules(), hooks, strict=True) if hook}
    return tuple(sorted(kinds - {"meta"}))


def _generates(module: nn.Module) -> bool:
    # Not what a wrapper hands on with __getattr__: the module that has it is observed itself.
    return "generate" in vars(module) or hasattr(type(module), "generate")


def _compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _named(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: str) -> dict[str, Any]:
    """The arguments of a call by their names; `first` is that of the first one where the signature has none."""
    names = _positions(getattr(function, "__func__", function)) if args else ()
    named = {}
    for number, value in enumerate(args):
        known = names[number] if number < len(names) else ""
        named[known or (first if number == 0 and first else f"argument {number}")] = value
    return {**named, **kwargs}


@cache
def _positions(function: Any) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds and parameter.name != "self")


def _described(named: Mapping[str, Any], *, values: bool = False) -> dict[str, Any]:
    found = {}
    for name, value in named.items():
        for path, tensor in leaves(value, name):
            found[path] = seen(tensor, mask="mask" in path, values=values)
    return found
