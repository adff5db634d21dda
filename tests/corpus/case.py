"""One bug of the corpus: a target that has it, a target that has not, and where it shows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

from checkpoints import checkpoint

from pytest_llmdevice import Cell, Result, examine, simulate
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.target import Target
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.zoo import cache_directory


@dataclass(frozen=True)
class Case:
    """A bug and its correct twin.

    Attributes:
        name: what the bug is, in words joined by hyphens.
        family: the kind of bug: dtype, placement, values, quantization, state, inputs, padding, cache, ...
        source: the public issue or pull request that shows it.
        story: what goes wrong, in a sentence.
        buggy: makes the target that has the bug.
        fixed: makes its twin.
        cells: where the twin must pass, and the bug must show on one of them at least.
        machine: a profile to simulate while those cells run, such as `"cuda:2"`; empty for none.
        missed: why no check can see it here; empty for a bug that must be caught.
        beside: cards to simulate while a cpu cell is loaded once more, such as `"cuda:2"`; empty for none.
        others: cells of the same model, loaded between a cell and that cell once more.
        needs: a package that both targets import, where it may be absent; empty for none.
    """

    name: str
    family: str
    source: str
    story: str
    buggy: Callable[[], Target]
    fixed: Callable[[], Target]
    cells: tuple[Cell, ...]
    machine: str = ""
    missed: str = ""
    beside: str = ""
    others: tuple[Cell, ...] = ()
    needs: str = ""

    def run(self, target: Target, cell: Cell) -> Generator[Result]:
        """What every check says of `target` on `cell`, one after the other."""
        references = cache_directory() / "references"
        with _process_of_its_own(), simulate(self.machine) if self.machine else nullcontext():
            folder, given = checkpoint(cell.model), prompts(cell.model)
            yield from examine(target, folder, cell, given, beside=self.beside, others=self.others, folder=references)

    def failures(self, target: Target, until: str = vocabulary.checks()[-1]) -> Iterator[tuple[Cell, Result]]:
        """The checks that did not pass, over all cells. A reader of the first one only leaves the others undone.

        Args:
            target: the bug or its twin.
            until: the last check to make.
        """
        last = vocabulary.checks().index(until)
        for cell in self.cells:
            for result in (results := self.run(target, cell)):
                if result.outcome not in {"passed", "inapplicable"}:
                    yield cell, result
                if vocabulary.checks().index(result.check) >= last:
                    break
            results.close()


@cache
def prompts(model: str) -> Sequence[Sequence[int]]:
    """The suite's prompts for a zoo model. Its tokenizer takes longer to read than the model."""
    return encode(load_tokenizer(checkpoint(model)))


@contextmanager
def _process_of_its_own() -> Iterator[None]:
    """Random numbers that are the same each time, and what a buggy target leaves behind in torch put back."""
    import torch

    dtype = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)
