"""What happens once for each load or each draw, and must stay small beside it.

`python benchmarks/small_costs.py` prints the least of many runs of each, in microseconds: a machine that is busy with
something else then says little. Drawing random numbers for a simulated card should cost under 15, measuring a call
under 5,000.
"""

from __future__ import annotations

from collections.abc import Callable
from timeit import timeit

from pytest_llmdevice.monitoring.resources import Meter
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.generators import drawing


def least(call: Callable[[], object], number: int, times: int = 20) -> float:
    """The microseconds of one `call` in the fastest of `times` groups of `number`."""
    call()
    return 1e6 * min(timeit(call, number=number) for _ in range(times)) / number


def main() -> None:
    """Print them."""

    def measure() -> None:
        with Meter():
            pass

    print(f"{least(measure, 1):9.1f} us  measuring a call")
    with simulate("cuda"):
        import torch

        generator = torch.cuda.default_generators[0]

        def draw() -> None:
            with drawing(generator):
                pass

        print(f"{least(draw, 200):9.1f} us  drawing for a simulated card")


if __name__ == "__main__":
    main()
