"""Lists torch functions by what they do to devices: those that create no storage, factories, and random functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any, Final

import torch
import torch.utils._device


def _words(text: str) -> list[str]:
    return text.split()


METADATA: Final = _words(
    """
    size dim ndimension stride numel nelement element_size nbytes storage_offset data_ptr untyped_storage storage
    _typed_storage is_contiguous is_floating_point is_complex is_signed is_inference is_same_size is_conj is_neg
    is_nonzero item tolist requires_grad_ retain_grad register_hook register_post_accumulate_grad_hook has_names
    dim_order is_coalesced sparse_dim dense_dim _is_view _nnz __len__ __bool__ __int__ __float__ __index__ __hash__
    __dir__ __complex__ __iter__ _is_zerotensor
    """
)
"""Methods that read metadata or values, which are the same for a tensor on a card and for its CPU tensor."""

VIEWS: Final = _words(
    """
    view view_as _unsafe_view detach detach_ transpose transpose_ t t_ permute squeeze squeeze_ unsqueeze unsqueeze_
    expand expand_as narrow select chunk split split_with_sizes unbind swapaxes swapdims movedim moveaxis as_strided
    diagonal unfold hsplit vsplit dsplit tensor_split adjoint view_as_real view_as_complex alias resolve_conj
    resolve_neg
    """
)
"""Methods whose result shares the storage of the first operand, and with it its device."""

IN_PLACE: Final = _words(
    """
    zero_ copy_ requires_grad_ rename_ _coalesced_
    """
)
"""Methods that write into their first operand; `copy_` may read from any device."""

RANDOM: Final = _words(
    """
    rand rand_like randn randn_like randint randint_like randperm normal normal_ uniform_ bernoulli bernoulli_
    exponential_ geometric_ cauchy_ log_normal_ random_ multinomial poisson binomial rrelu rrelu_ dropout dropout_
    alpha_dropout feature_dropout feature_alpha_dropout native_dropout _standard_gamma _sample_dirichlet
    """
)
"""Functions that draw random numbers. Attention is missing: `handlers` reads its `dropout_p`."""

REPLACED: Final = ("linspace",)
"""Factories that may be missing from PyTorch's list. PyTorch builds the list on first use, which may be while
transformers loads a model and has replaced this function by its own (transformers/initialization.py, 5.23)."""

_ABOUT_DEVICES: Final = frozenset({"device", "is_cuda", "is_cpu", "is_mps", "is_xpu", "is_meta", "grad"})


@cache
def transparent_functions() -> frozenset[Any]:
    """The functions that run unchanged."""
    # `torch.nn.functional` is left out: its `unfold` is another function.
    functions = functions_named((*METADATA, *VIEWS, *IN_PLACE), _TENSOR_FUNCTIONS)
    settings = (torch._C._set_grad_enabled, torch._has_compatible_shallow_copy_type)
    return frozenset((*_attributes(), *functions, *settings))


@cache
def factory_functions() -> frozenset[Any]:
    """The factories that `torch.set_default_device` affects, as PyTorch itself lists them."""
    listed = torch.utils._device._device_constructors()
    return frozenset((*listed, *functions_named(REPLACED, (torch._C._VariableFunctions,))))


@cache
def random_functions() -> frozenset[Any]:
    """The functions that draw random numbers from a generator."""
    return frozenset(functions_named(RANDOM))


def _attributes() -> Iterator[Any]:
    for name, attribute in vars(torch._C.TensorBase).items():
        if type(attribute).__name__ == "getset_descriptor" and name not in _ABOUT_DEVICES:
            yield attribute.__get__
            yield attribute.__set__
    grad: Any = vars(torch._C.TensorBase)["grad"]
    yield grad.__get__


_TENSOR_FUNCTIONS: Final = (torch.Tensor, torch._C.TensorBase, torch, torch._C._VariableFunctions)


def functions_named(
    names: Iterable[str], namespaces: Iterable[Any] = (*_TENSOR_FUNCTIONS, torch.nn.functional, torch._C._nn)
) -> Iterator[Any]:
    """Every torch function that has one of these names in one of the namespaces."""
    for name, namespace in product(names, tuple(namespaces)):
        function = getattr(namespace, name, None)
        if callable(function):
            yield function
