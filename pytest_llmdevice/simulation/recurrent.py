"""Handlers of recurrent layers and cells, which compare devices before and between the operations they consist of.

From PyTorch 2.13: RNN.cpp, as its CUDA build answers (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pytest_llmdevice.simulation.function_names import functions_named
from pytest_llmdevice.simulation.rules import CPU, Operand, scalar_name, wrapper_rule

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import FunctionMode

Handler = Callable[["FunctionMode", Any, tuple[Any, ...], dict[str, Any]], Any]

_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = ("lstm_cell", "gru_cell")


def _layer(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer on the CPU: its state is compared with the input. On a card it is left to cuDNN.

    Raises:
        RuntimeError: PyTorch's, for a state on a card.
    """
    # The other form, for packed sequences, has their sizes second.
    values, state = args[0], args[2] if isinstance(args[3], (list, tuple)) else args[1]
    device = mode.device_of(values)
    for tensor in state if isinstance(state, (list, tuple)) else (state,):
        if device == CPU != mode.device_of(tensor):
            raise RuntimeError(
                "Input and hidden tensors are not at the same device, found input tensor at cpu and hidden tensor at "
                f"{mode.device_of(tensor)}"
            )
    return mode.compute(func, args, kwargs)


def _cell(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A cell, whose input on an NVIDIA or AMD card is computed by two products and a kernel that joins them.

    Raises:
        RuntimeError: PyTorch's, for operands on different devices, or of different dtypes.
    """
    values, state = args[0], args[1]
    device = mode.device_of(values)
    if device.type == "cuda":
        _refuse_apart(mode, func.__name__, values, state if isinstance(state, (list, tuple)) else (state,), args[2:])
    return mode.compute(func, args, kwargs)


def _refuse_apart(
    mode: FunctionMode, name: str, values: torch.Tensor, state: Sequence[torch.Tensor], parameters: Sequence[Any]
) -> None:
    into, within, *biases = parameters
    for factors in ((values, into), (state[0], within)):
        wrapper_rule(torch.ops.aten.mm.default, list(_operands(mode, ("self", "mat2"), factors)))
    last = state[-1]
    fused = torch.ops.aten._thnn_fused_lstm_cell if name == "lstm_cell" else torch.ops.aten._thnn_fused_gru_cell
    names = ("input_gates", "hidden_gates", "cx" if name == "lstm_cell" else "hx", "input_bias", "hidden_bias")
    gates = (values, state[0], last, *biases)
    wrapper_rule(fused.default, list(_operands(mode, names, gates)))
    if last.dtype != values.dtype and not torch.is_autocast_enabled("cuda"):
        raise RuntimeError(f"expected scalar type {scalar_name(values.dtype)} but found {scalar_name(last.dtype)}")


def _operands(mode: FunctionMode, names: Sequence[str], tensors: Sequence[Any]) -> Iterator[Operand]:
    for name, tensor in zip(names, tensors, strict=False):
        if isinstance(tensor, torch.Tensor):
            yield Operand(name, tensor, mode.device_of(tensor))


def recurrent_handlers() -> dict[Any, Handler]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    spaces = (torch, torch._VF, torch._C._VariableFunctions)
    table: dict[Any, Handler] = {}
    for name in _LAYERS:
        table.update(dict.fromkeys(functions_named([name], spaces), _layer))
    for name in _CELLS:
        table.update(dict.fromkeys(functions_named([name], spaces), _cell))
    return table
