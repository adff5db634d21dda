"""Records what the modules of a plain load say to what: embeddings, norms, positions, products and parts of a layer.

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
from pytest_llmdevice.model.wrappers import accepted_arguments
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
        exact: whether there is one right answer up to a few roundings, or sums in it that kernels make in other orders.
    """

    kind: str
    tensors: Mapping[str, tuple[str, float]]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[torch.Tensor, ...]
    exact: bool


def module_calls(
    checkpoint: str, dtype: str, prompt: Sequence[int], attention: str = "eager"
) -> Mapping[str, ModuleCall]:
    """The first calls of the modules of `checkpoint` in `dtype` on the cpu, by name, in the order in which they end.

    Whole layers and what is around them are left out: their parts are here.

    Args:
        checkpoint: a local folder.
        dtype: a dtype of cells.
        prompt: token ids.
        attention: the implementation of attention, by which the masks are made that layers are given.

    Raises:
        Exception: what the load or the forward pass raises.
    """
    return _asked(fingerprint(checkpoint), checkpoint, dtype, tuple(prompt), attention)


@lru_cache(maxsize=4)
def _asked(
    _print: tuple[object, ...], checkpoint: str, dtype: str, prompt: tuple[int, ...], attention: str
) -> Mapping[str, ModuleCall]:
    return ask(recorded_calls, checkpoint, dtype, prompt, attention)


def recorded_calls(checkpoint: str, dtype: str, prompt: tuple[int, ...], attention: str) -> Mapping[str, ModuleCall]:
    """The same, made in this process."""
    model = from_pretrained(checkpoint, Cell("plain", "cpu", dtype, attention=attention))
    exact = exact_modules(model)
    calls: dict[str, ModuleCall] = {}
    left = MOST

    def record(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal left
        returned = outputs_in(output)
        if name in calls or not returned or not _is_plain((args, kwargs)):
            return
        left -= _elements((args, kwargs)) + sum(tensor.numel() for tensor in returned)
        if left < 0:
            return
        calls[name] = ModuleCall(
            kind_of(module), tensors_of(module), _copy(args), _copy(kwargs), returned, name in exact
        )

    with ExitStack() as stack:
        for name, module in parts_of_layers(model).items():

            def after(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                record(name, module, args, kwargs, output)

            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        # Without a cache: layers are given none then, which a call would change.
        uncached = {"use_cache": False} if "use_cache" in accepted_arguments(model) else {}
        inputs: dict[str, Any] = {**inputs_for(model, [prompt]), **uncached}
        forward_logits(model, inputs)
    modules = dict(model.named_modules())
    # What a module does not repeat, as one that counts its calls, is nothing to hold another one to.
    return {name: call for name, call in calls.items() if _repeats(modules[name], call)}


def parts_of_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of `model` that are inside a layer, or have no parts, by name."""
    from torch import nn

    modules = dict(model.named_modules())
    # A whole layer, or what holds layers, differs wherever a part of it does, and adds up their roundings.
    whole = {name for name, module in modules.items() if isinstance(module, nn.ModuleList)}
    layers = {name for name in modules if name.rpartition(".")[0] in whole}
    around = {name[:end] for name in layers for end in (0, *_dots(name))}
    leaves = {name for name, module in modules.items() if not any(True for _ in module.children())}
    return {name: module for name, module in modules.items() if name in leaves or name not in around | layers | whole}


def _dots(name: str) -> list[int]:
    return [place for place, sign in enumerate(name) if sign == "."]


def exact_modules(model: nn.Module) -> frozenset[str]:
    """The names of the modules without parts and without a matrix product.

    Products and attention give other roundings in each kernel, order or shape; what these modules compute has one
    right value up to a few roundings.
    """
    from torch import nn

    return frozenset(
        name
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
        and (isinstance(module, nn.Embedding) or all(each.ndim < 2 for each in module.parameters(recurse=False)))
    )


def kind_of(module: nn.Module) -> str:
    """The name of the class of `module`, with the module that defines it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def tensors_of(module: nn.Module) -> dict[str, tuple[str, float]]:
    """Name -> (dtype, sum of the values) of the parameters and buffers in `module` that are numbers."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {
        name: (str(tensor.dtype), float("nan") if tensor.is_meta else float(tensor.detach().double().sum()))
        for name, tensor in named
        if tensor.is_floating_point()
    }


def called(module: nn.Module, call: ModuleCall) -> tuple[torch.Tensor, ...]:
    """What `module` says to the inputs of `call`. Raises what the module raises."""
    import torch

    with torch.no_grad():
        return outputs_in(module(*_copy(call.args), **_copy(call.kwargs)))


def outputs_in(output: Any) -> tuple[torch.Tensor, ...]:
    """Copies of the floating-point tensors that a module returned."""
    import torch

    several = output if isinstance(output, (tuple, list)) else (output,)
    return tuple(
        each.detach().clone() for each in several if isinstance(each, torch.Tensor) and each.is_floating_point()
    )


def _copy(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_copy(each) for each in value)
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return value.detach().clone() if hasattr(value, "detach") else value


def _is_plain(value: Any) -> bool:
    """Whether `value` is made of tensors and constants: a cache is not, which a call would change."""
    import torch

    if type(value) in {tuple, list}:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return isinstance(value, (torch.Tensor, *_PLAIN))


def _elements(value: Any) -> int:
    if isinstance(value, (tuple, list)):
        return sum(map(_elements, value))
    if isinstance(value, dict):
        return sum(map(_elements, value.values()))
    return int(value.numel()) if hasattr(value, "numel") else 0


def _repeats(module: nn.Module, call: ModuleCall) -> bool:
    again = called(module, call)
    return len(again) == len(call.outputs) and all(
        bool((one == other).all()) for one, other in zip(again, call.outputs, strict=True)
    )
