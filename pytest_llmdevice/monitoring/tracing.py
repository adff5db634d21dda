"""Records the tensors that a target passes to its model, before transformers or accelerate move them.

`generate` of transformers 5 silently moves inputs to the model's device, and so do the hooks of a dispatched model in
`forward`. A target that leaves its inputs on the CPU therefore works with one version and fails with another.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.model.device_map import execution_device
from pytest_llmdevice.model.kv_cache import CACHE_ARGUMENTS, cache_length, is_offloaded, layer_tensors, state_tensors
from pytest_llmdevice.model.observation import observed
from pytest_llmdevice.model.wrappers import input_embedding
from pytest_llmdevice.monitoring.trace import Call, ModuleTrace, Trace, describe, tensors_in
from pytest_llmdevice.monitoring.warnings import recorded_warnings

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_CALLS: Final = 256
"""Calls that are recorded at most: a target's own decoding loop makes one for each token."""


@contextmanager
def traced(model: nn.Module) -> Iterator[Trace]:
    """Record what is passed to `model`, its submodules and their `generate` inside the context; see `Trace`."""
    observer = _Observer(model)
    try:
        with recorded_warnings() as observer.trace.warnings:
            observer.attach()
            yield observer.trace
    finally:
        observer.detach()


class _Observer:
    """The hooks on every module of a model, and their state.

    The stack holds the calls in progress: a call with an empty stack is the target's own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.trace = Trace()
        self.model = model
        self.stack: list[int] = []
        self.inner_calls: set[tuple[str, str]] = set()
        self.names: dict[int, str] = {}
        self.modules: dict[int, nn.Module] = {}
        for name, module in model.named_modules():
            self.names[id(module)], self.modules[id(module)] = name, module
        self.prompt_modules = prompt_modules(model)
        self.handles: list[Any] = []
        self.generates: list[tuple[Any, Any]] = []
        self.types = _device_types(model)
        self.outer_calls = 0

    def attach(self) -> None:
        embedding = input_embedding(self.model)
        self.trace.embedding_device = execution_device(embedding) if embedding is not None else None
        for module in self.modules.values():
            self.handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True, prepend=True))
            self.handles.append(module.register_forward_hook(self.after, always_call=True))
            inner = getattr(module, "generate", None) if _generates(module) else None
            if callable(inner):
                self.generates.append((module, vars(module).get("generate")))
                patched: Any = module
                patched.generate = self.recording(module, inner)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        for module, own in self.generates:
            if own is None:
                vars(module).pop("generate", None)
            else:
                module.generate = own

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not observed():
            return
        if _compiling():
            # Hooks cannot look into compiled code; only its use is recorded.
            self.trace.compiled = True
            return
        outer = not self.stack
        self.stack.append(id(module))
        name = self.names[id(module)]
        if module.training:
            self.trace.training[name] = None
        first_call = self.trace.modules.get(name)
        prompt = id(module) in self.prompt_modules
        if first_call is not None and not prompt:
            first_call.calls += 1
            return
        named = _named(type(module).forward, args, kwargs, "input_ids" if prompt else "")
        if first_call is None:
            first_call = ModuleTrace(_described(named))
            self.trace.modules[name] = first_call
            self.record_autocast(name)
        first_call.calls += 1
        if prompt:
            self.record_call("forward", name, named, outer=outer)

    def after(self, module: nn.Module, _: Any, output: Any) -> None:
        # After an exception in a hook that ran before ours, this module is not on the stack.
        if _compiling() or id(module) not in self.stack:
            return
        while self.stack.pop() != id(module):
            pass
        if self.trace.first_pass is None and getattr(output, "logits", None) is not None:
            self.trace.first_pass = time.perf_counter()
        first_call = self.trace.modules.get(self.names[id(module)])
        if first_call is not None and not first_call.finished and output is not None:
            first_call.finished = True
            first_call.outputs = _described({"output": output})

    def recording(self, module: nn.Module, inner: Callable[..., Any]) -> Callable[..., Any]:
        name = self.names[id(module)]

        @wraps(inner)
        def generate(*args: Any, **kwargs: Any) -> Any:
            if not observed():
                return inner(*args, **kwargs)
            named = _named(inner, args, kwargs, "inputs")
            self.record_call("generate", name, named, outer=not self.stack)
            mark = len(self.stack)
            self.stack.append(0)
            try:
                return inner(*args, **kwargs)
            finally:
                del self.stack[mark:]

        return generate

    def record_call(self, function: str, name: str, named: Mapping[str, Any], *, outer: bool) -> None:
        """Record a call of the target, and the first call of each module inside it."""
        if outer:
            self.outer_calls += 1
            self.inner_calls.clear()
            self.record_autocast(name)
        past = next((named[key] for key in CACHE_ARGUMENTS if named.get(key) is not None), None)
        self.record_cache(past)
        if len(self.trace.calls) >= MOST_CALLS or (not outer and (function, name) in self.inner_calls):
            return
        self.inner_calls.add((function, name))
        tensors = _described({key: value for key, value in named.items() if key not in CACHE_ARGUMENTS}, values=True)
        self.trace.calls.append(Call(function, name, outer, tensors, cache_length(past), self.outer_calls))

    def record_cache(self, past: Any) -> None:
        if past is None:
            return
        self.trace.offloaded |= is_offloaded(past)
        for layer, kind, tensor in layer_tensors(past):
            key = (layer, kind, tensor.device, tensor.dtype)
            if tensor.numel() and key not in self.trace.caches:
                self.trace.caches[key] = None
                half = exact_half(tensor)
                if half is not None:
                    self.trace.exact_halves[layer, kind, half] = None
        for layer, kind, tensor in state_tensors(past):
            self.trace.caches[layer, kind, tensor.device, tensor.dtype] = None
            # A state is another one after each token, and may be rounded at some of them only.
            half = exact_half(tensor)
            if half is not None:
                self.trace.exact_halves[layer, kind, half] = None

    def record_autocast(self, name: str) -> None:
        import torch

        for kind in self.types:
            if torch.is_autocast_enabled(kind):
                self.trace.autocast.setdefault((kind, torch.get_autocast_dtype(kind)), name)


def exact_half(tensor: torch.Tensor) -> torch.dtype | None:
    """The 16-bit dtype that holds every value of a float32 `tensor` exactly; None without one, and for a constant."""
    import torch

    if tensor.dtype != torch.float32 or tensor.is_meta:
        return None
    for half in (torch.bfloat16, torch.float16):
        # As every cache is at first.
        if bool((tensor.to(half).float() == tensor).all()) and bool((tensor != tensor.flatten()[0]).any()):
            return half
    return None


def prompt_modules(model: Any) -> set[int]:
    """The ids (`id(module)`) of the modules that take the prompt: the input embedding and all that contain it."""
    embedding = input_embedding(model)
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is embedding]
    modules = {id(model)}
    for name in names:
        parts = name.split(".")
        modules |= {id(model.get_submodule(".".join(parts[:end]))) for end in range(len(parts) + 1)}
    return modules


def _device_types(model: nn.Module) -> tuple[str, ...]:
    kinds = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} | {"cpu"}
    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    kinds |= {execution_device(module).type for module, hook in zip(model.modules(), hooks, strict=True) if hook}
    return tuple(sorted(kinds - {"meta"}))


def _generates(module: nn.Module) -> bool:
    # Without what a wrapper forwards with `__getattr__`: the module that has it gets a hook of its own.
    return "generate" in vars(module) or hasattr(type(module), "generate")


def _compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _named(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first: str) -> dict[str, Any]:
    """The arguments of a call by name; `first` names the first one if the signature has no name for it."""
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
    described = {}
    for name, value in named.items():
        for path, tensor in tensors_in(value, name):
            described[path] = describe(tensor, mask="mask" in path, values=values)
    return described
