"""Says which part of a weight a rank should have, where code of its own cuts weights into plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

FUSED: Final = (1, 2, 3)
"""Of how many weights one may be made: alone, gate and up, or query, key and value."""


def slices_of_rank(whole: torch.Tensor, shape: torch.Size, rank: int, size: int) -> Iterator[torch.Tensor]:
    """The parts of `whole` in the given shape that the process of number `rank` may have; none where no cut fits.

    One dimension is cut into `size` parts of one length. Of a weight that is made of several, each is cut by itself.

    Args:
        whole: the weight of the checkpoint.
        shape: of what the rank has.
        rank: its number.
        size: how many ranks there are.
    """
    import torch

    if len(shape) != whole.dim():
        return
    cut = [dim for dim in range(whole.dim()) if shape[dim] != whole.shape[dim]]
    if len(cut) != 1 or shape[cut[0]] * size != whole.shape[cut[0]]:
        return
    dim = cut[0]
    for count in FUSED:
        if whole.shape[dim] % (count * size) == 0:
            parts = whole.chunk(count, dim)
            yield torch.cat([part.chunk(size, dim)[rank] for part in parts], dim)
