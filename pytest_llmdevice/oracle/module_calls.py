"""Records what the small modules of a plain load say to what: embeddings, norms, positions and activations.

Each module of a model under test can then be given the same, so that errors of the modules before it do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.oracle.process import ask

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST: Final = 2**22
"""Elements of the inputs and outputs that travel between processes; modules beyond it are left out."""

_PLAIN: Final = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """The first call of a module in a forward pass of a plain load.

    Attributes:
        kind: the name of its class, with the module that defines it.
        tensors: name -> (dtype, sum of the values) of its parameters and buffers.
        args: what it was called with.
        kwargs: likewise.
        outputs: the tensors that it returned.
    """

    kind: str
    tensors: Mapping[str, tuple[str, float]]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[torch.Tensor, ...]


def module_calls(checkpoint: str, dtype: str, prompt: Sequence[int]) -> Mapping[str, ModuleCall]:
    """The first calls of the small modules of `checkpoint` in `dtype` on the cpu, by name, in the order of calls.

    Args:
        checkpoint: a local folder.
        dtype: a dtype of cells.
        prompt: token ids.

    Raises:
        Exception: what the load or the forward pass raises.
    """
    return _asked(fingerprint(checkpoint), checkpoint, dtype, tuple(prompt))


@lru_cache(maxsize=4)
def _asked(
    _print: tuple[object, ...], checkpoint: str, dtype: str, prompt: tuple[int, ...]
) -> Mapping[str, ModuleCall]:
    return ask(recorded_calls, checkpoint, dtype, prompt)


def recorded_calls(checkpoint: str, dtype: str, prompt: tuple[int, ...]) -> Mapping[str, ModuleCall]:
    """The same, made in this process."""
    import torch

    model = from_pretrained(checkpoint, Cell("plain", "cpu", dtype))
    calls: dict[str, ModuleCall] = {}
    left = MOST

    def record(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal left
        returned = outputs_in(output)
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        plain = all(isinstance(value, (torch.Tensor, *_PLAIN)) for value in (*args, *kwargs.values()))
        left -= sum(tensor.numel() for tensor in (*given, *returned))
        if name in calls or not plain or not returned or left < 0:
            return
        copied = tuple(map(_copy, args)), {key: _copy(value) for key, value in kwargs.items()}
        calls[name] = ModuleCall(kind_of(module), tensors_of(module), *copied, returned)

    with ExitStack() as stack:
        for name, module in small_modules(model).items():

            def after(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                record(name, module, args, kwargs, output)

            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        forward_logits(model, inputs_for(model, [prompt]))
    modules = dict(model.named_modules())
    # What a module does not repeat, as one that counts its calls, is nothing to hold another one to.
    return {name: call for name, call in calls.items() if _repeats(modules[name], call)}


def small_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules without parts and without a matrix product, by name.

    Products and attention give other roundings in each kernel, order or shape; what these modules compute has one
    right value up to a few roundings.
    """
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
        and (isinstance(module, nn.Embedding) or all(each.ndim < 2 for each in module.parameters(recurse=False)))
    }


def kind_of(module: nn.Module) -> str:
    """The name of the class of `module`, with the module that defines it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def tensors_of(module: nn.Module) -> dict[str, tuple[str, float]]:
    """Name -> (dtype, sum of the values) of the parameters and buffers of `module` that are numbers."""
    named = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {
        name: (str(tensor.dtype), float("nan") if tensor.is_meta else float(tensor.detach().double().sum()))
        for name, tensor in named
        if tensor.is_floating_point()
    }


def called(module: nn.Module, call: ModuleCall) -> tuple[torch.Tensor, ...]:
    """What `module` says to the inputs of `call`. Raises what the module raises."""
    import torch

    with torch.no_grad():
        return outputs_in(module(*map(_copy, call.args), **{key: _copy(value) for key, value in call.kwargs.items()}))


def outputs_in(output: Any) -> tuple[torch.Tensor, ...]:
    """Copies of the floating-point tensors that a module returned."""
    import torch

    several = output if isinstance(output, (tuple, list)) else (output,)
    return tuple(
        each.detach().clone() for each in several if isinstance(each, torch.Tensor) and each.is_floating_point()
    )


def _copy(value: Any) -> Any:
    return value.detach().clone() if hasattr(value, "detach") else value


def _repeats(module: nn.Module, call: ModuleCall) -> bool:
    again = called(module, call)
    return len(again) == len(call.outputs) and all(
        bool((one == other).all()) for one, other in zip(again, call.outputs, strict=True)
    )
