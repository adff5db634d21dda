"""Has routers of any architecture choose the experts of a token by that token alone, with a margin.

With random weights, a few choices of a text are nearer to a tie than half precision tells; the trait `close-routing`
leaves them so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.zoo.weights import generator

if TYPE_CHECKING:
    import torch
    from torch import nn

_ROUTER: Final = re.compile(r"(^|\.)(gate|router)(\.\w+)?(\.weight)?$")

_MOST_EXPERTS: Final = 16

_STRENGTH: Final = 3.0
"""The component of a token's embedding in the direction of an expert, in standard deviations of an embedding."""


def settle_routing(model: nn.Module, seed: int) -> None:
    """Change the weights of `model` in place, if it has routers that read the residual stream.

    Half of the experts is given a direction to which the embedding of a token points; nothing that is written to the
    residual stream has a part in these directions.
    """
    import torch

    untyped: Any = model
    table = untyped.get_input_embeddings().weight
    width = table.shape[1]
    routers = [weight for name, weight in model.named_parameters() if _is_router(name, weight, width)]
    if not routers:
        return
    head = untyped.get_output_embeddings()
    left = {id(weight) for weight in (*routers, table, getattr(head, "weight", None))}
    experts = max(len(router) for router in routers)
    with torch.no_grad():
        directions = torch.linalg.qr(torch.randn(width, experts, generator=generator(seed, "router"))).Q.T
        for router in routers:
            router.copy_(directions[: len(router)])
        for name, weight in model.named_parameters():
            if id(weight) not in left and not (weight.ndim == 1 and not name.endswith("bias")):
                _without(weight, directions)
        order = torch.rand(len(table), experts, generator=generator(seed, "experts")).argsort(dim=1)
        reach = torch.where(order < experts // 2, _STRENGTH, -_STRENGTH) * table.std(dim=1, keepdim=True)
        table.add_((reach - table @ directions.T) @ directions)


def _is_router(name: str, weight: nn.Parameter, width: int) -> bool:
    if weight.ndim != 2 or not _ROUTER.search(name):
        return False
    return weight.shape[1] == width and 1 < len(weight) <= _MOST_EXPERTS


def _without(weight: nn.Parameter, directions: torch.Tensor) -> None:
    """Remove `directions` from every side of `weight` that is as wide as the residual stream.

    From what it reads too: how the axes of a stack of experts lie is not the same everywhere.
    """
    for axis, size in enumerate(weight.shape):
        if size == directions.shape[1]:
            moved = weight.movedim(axis, -1)
            moved.sub_((moved @ directions.T) @ directions)
