"""What a group of NCCL's says of tensors before it hands them to NCCL: where they are, and how they lie in memory.

From the repository's root, in an environment with the CUDA build:

    python -m tests.simulation.ground_truth.executed.collectives

and what the simulation does otherwise, with any build:

    python -m tests.simulation.ground_truth.executed.collectives --compare

NCCL itself finds no card that it knows: a call that reaches it is written down as one that goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from . import record

COLLECTIVES: Final = Path(__file__).with_name("collectives.json")

GOES_ON: Final = "goes on"
"""What is written for a call that nothing refuses before NCCL, or Gloo, gets it."""

_ADDRESS: Final = "NCCL is handed an address of the host, and what comes of that is not seen; here it is refused"
_WRITTEN: Final = "the CPU writes no tensor that has one element at several places"
KNOWN: Final = {
    "all_gather, into it: expanded": _WRITTEN,
    "gather, into it: expanded": _WRITTEN,
    "gather, into it: on the cpu": _ADDRESS,
    "reduce_scatter: sparse": "Gloo copies it, which NCCL does not",
    "reduce_scatter_tensor, into it: expanded": _WRITTEN,
    "reduce_scatter_tensor, into it: on the cpu": _ADDRESS,
    "scatter: on the cpu": _ADDRESS,
}
"""The calls to which the simulation says something else, each with the reason."""

LAYOUTS: Final[dict[str, Callable[[Any], Any]]] = {
    "on the cpu": lambda it: it.cpu(),
    "transposed": lambda it: it.t(),
    "a slice": lambda it: it.repeat(1, 2)[:, 1:5],
    "expanded": lambda it: it[:1].expand(4, 4),
    "sparse": lambda it: it.to_sparse(),
}
"""What is done to a tensor of 4 x 4 before a call gets it."""

CALLS: Final[dict[str, Callable[[Any, Any, Any], Any]]] = {
    "all_reduce": lambda d, given, _: d.all_reduce(given),
    "broadcast": lambda d, given, _: d.broadcast(given, 0),
    "reduce": lambda d, given, _: d.reduce(given, 0),
    "all_gather": lambda d, given, usual: d.all_gather([usual], given),
    "all_gather, into it": lambda d, given, usual: d.all_gather([given], usual),
    "all_gather_into_tensor": lambda d, given, usual: d.all_gather_into_tensor(usual, given),
    "all_gather_into_tensor, into it": lambda d, given, usual: d.all_gather_into_tensor(given, usual),
    "reduce_scatter": lambda d, given, usual: d.reduce_scatter(usual, [given]),
    "reduce_scatter, into it": lambda d, given, usual: d.reduce_scatter(given, [usual]),
    "reduce_scatter_tensor": lambda d, given, usual: d.reduce_scatter_tensor(usual, given),
    "reduce_scatter_tensor, into it": lambda d, given, usual: d.reduce_scatter_tensor(given, usual),
    "all_to_all_single": lambda d, given, usual: d.all_to_all_single(usual, given),
    "all_to_all_single, into it": lambda d, given, usual: d.all_to_all_single(given, usual),
    "all_to_all": lambda d, given, usual: d.all_to_all([usual], [given]),
    "all_to_all, into it": lambda d, given, usual: d.all_to_all([given], [usual]),
    "gather": lambda d, given, usual: d.gather(given, [usual], 0),
    "gather, into it": lambda d, given, usual: d.gather(usual, [given], 0),
    "scatter": lambda d, given, usual: d.scatter(usual, [given], 0),
    "scatter, into it": lambda d, given, usual: d.scatter(given, [usual], 0),
    "all_reduce_coalesced": lambda d, given, usual: d.all_reduce_coalesced([given, usual]),
    "functional all_reduce": lambda d, given, _: _waited("all_reduce", given, "sum", d.group.WORLD),
    "functional all_gather": lambda d, given, _: _waited("all_gather_tensor", given, 0, d.group.WORLD),
    "functional broadcast": lambda d, given, _: _waited("broadcast", given, 0, d.group.WORLD),
}
"""The name of a call -> the call, of `torch.distributed`, a tensor that lies as it should not, and a usual one."""


def _waited(name: str, *given: Any) -> None:
    """The functional collective `name`, to its end."""
    from torch.distributed import _functional_collectives

    functional: Any = _functional_collectives
    functional.wait_tensor(getattr(functional, name)(*given))


def said() -> Iterator[tuple[str, str]]:
    """Each call with each layout, in a group of one rank, and what it is told: the error, or that it goes on."""
    import torch
    import torch.distributed

    dist: Any = torch.distributed
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for layout, change in LAYOUTS.items():
                for name, call in CALLS.items():
                    usual = torch.ones(4, 4, device="cuda:0")
                    given = change(torch.ones(4, 4, device="cuda:0"))
                    yield f"{name}: {layout}", _said(call, dist, given, usual)
    finally:
        dist.destroy_process_group()


def _said(call: Callable[..., Any], *given: Any) -> str:
    try:
        call(*given)
    except Exception as error:  # noqa: BLE001 - an error of any kind is what is looked for
        text = str(error).partition("\n")[0]
        # What is said of an operator that has no kernel goes on with a list of those of the build.
        text = text.partition(" This could be because")[0]
        return GOES_ON if text.startswith(("NCCL error", "ProcessGroup")) else f"{type(error).__name__}: {text}"
    return GOES_ON


def read(path: Path = COLLECTIVES) -> tuple[dict[str, Any], dict[str, str]]:
    """The header, and what each call is told."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["header"], data["said"]


def differing(path: Path = COLLECTIVES) -> dict[str, tuple[str, str]]:
    """The calls to which the simulation says something else: what CUDA's build says, and what it says."""
    from pytest_llmdevice.simulation import simulate

    wanted = read(path)[1]
    with simulate("cuda:2"):
        found = dict(said())
    return {name: (wanted.get(name, "not asked"), text) for name, text in found.items() if wanted.get(name) != text}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=COLLECTIVES, help="where what is said goes")
    parser.add_argument("--compare", action="store_true", help="ask the simulation")
    options = parser.parse_args(arguments)
    if options.compare:
        found = differing(options.out)
        for name, (cuda, simulated) in found.items():
            known = f" (known: {KNOWN[name]})" if name in KNOWN else ""
            sys.stdout.write(f"{name}{known}\n   CUDA: {cuda}\n   simulated: {simulated}\n")
        sys.stdout.write(f"{len(found)} of {len(read(options.out)[1])} differ\n")
        return bool(found)

    def write() -> None:
        data = {"header": record.header(), "said": dict(said())}
        options.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    return record.over_the_standin(__spec__.name, ["--out", str(options.out)], write)


if __name__ == "__main__":
    sys.exit(main())
