"""Decides for an aten operation whose operands are on several devices by which rule its result's device is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_llmdevice.simulation.operations import ITERATOR
from pytest_llmdevice.simulation.rules import CPU, Operand, iterator_rule, wrapper_rule
from pytest_llmdevice.simulation.single_rules import RULES
from pytest_llmdevice.simulation.tags import Tags

_COMPOSED = (
    torch._C.DispatchKey.CompositeExplicitAutograd,
    torch._C.DispatchKey.CompositeExplicitAutogradNonFunctional,
    torch._C.DispatchKey.CompositeImplicitAutograd,
)
_real_device: Any = vars(torch._C.TensorBase)["device"].__get__


def operands_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tags: Tags) -> list[Operand]:
    """The tensor arguments of a call to an aten operation in the order in which PyTorch checks them: outputs first."""
    schema = func._schema.arguments
    inputs: list[Operand] = []
    outputs: list[Operand] = []
    for position, argument in enumerate(schema):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if value is None:
            continue
        into = outputs if argument.is_out else inputs
        alias = argument.alias_info
        written = alias is not None and alias.is_write
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, torch.Tensor):
                into.append(Operand(argument.name, part, tags.of(part) or _real_device(part), written, argument.is_out))
    return outputs + inputs


def without_numbers(tensors: Sequence[Operand], card: str) -> bool:
    """Whether some of the operands are on `meta` and others on a card.

    `Meta` is the last of the backends, and of several PyTorch takes the last: such an operation runs its kernel for
    `meta`, which looks at devices only where it is written in Python (`torch._meta_registrations`, `torch._refs`).
    """
    kinds = {operand.device.type for operand in tensors}
    return {card, "meta"} <= kinds


def result_device(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The device of an operation's result.

    Args:
        func: the aten operation.
        tensors: its operands; at least one.
        args: its positional arguments, for the rules that depend on a number among them.

    Raises:
        RuntimeError: PyTorch's, for operands on devices that the operation does not accept.
    """
    first = tensors[0].device
    name = func._schema.name.removeprefix("aten::")
    rule = RULES.get(name)
    if rule is not None:
        return rule(func, tensors, args)
    if all(operand.device == first for operand in tensors):
        return first
    if name in ITERATOR:
        return iterator_rule(func, tensors)
    if "::" in name:
        return _custom_operation_rule(func, tensors)
    return wrapper_rule(func, tensors)


def _custom_operation_rule(func: Any, tensors: Sequence[Operand]) -> torch.device:
    """The rule for another library's operation: its kernels read only the memory of their own card."""
    common = next(operand.device for operand in tensors if operand.device != CPU)
    for operand in tensors:
        if operand.device != common and operand.tensor.numel():
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {common} and "
                f"{operand.device}! (argument {operand.name} of {func._schema.name})"
            )
    return common


def composite_key(func: Any, tensors: Sequence[Operand]) -> Any:
    """The dispatch key of the kernel that composes an operation of others, for tensors on different devices.

    None for an operation with a kernel of its own, and for tensors that are all on one device.
    """
    name = func._schema.name.removeprefix("aten::")
    if name in RULES or name in ITERATOR or all(operand.device == tensors[0].device for operand in tensors):
        return None
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU):
        return None
    return next((key for key in _COMPOSED if func.has_kernel_for_dispatch_key(key)), None)


def result_devices(func: Any, tensors: Sequence[Operand]) -> list[torch.device] | None:
    """The device of each result of an operation on lists of tensors (`_foreach_...`); None for any other operation.

    The operation treats the lists position by position, so each position follows TensorIterator's rule by itself.

    Raises:
        RuntimeError: PyTorch's, for tensors of one position that are on different devices.
    """
    if not func._schema.name.startswith("aten::_foreach_"):
        return None
    lists: dict[str, list[Operand]] = {}
    for operand in tensors:
        lists.setdefault(operand.name, []).append(operand)
    first, *others = lists.values()
    if "_foreach_copy" in func._schema.name:
        return [operand.device for operand in first]
    return [
        iterator_rule(func, [operand, *(other[min(position, len(other) - 1)] for other in others)])
        for position, operand in enumerate(first)
    ]
