"""Cells of several processes: how many there are, on which device each is, and what they agree on."""

from __future__ import annotations

import multiprocessing

import pytest

from pytest_llmdevice import BuiltinTarget, Cell, examine
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.ranks import is_sharded, of_rank, ranks_of
from pytest_llmdevice.monitoring import ranks
from pytest_llmdevice.monitoring.ranks import RanksApart, Together

CARDS = Cell("llama", "cuda:0", "float32", strategy="tensor-parallel")
ROCM = Cell("llama", "cuda:0", "float32", strategy="fsdp", kind="rocm")
CPU = Cell("llama", "cpu", "float32", strategy="data-parallel")


def test_each_rank_has_the_device_of_its_number() -> None:
    assert [ranks_of(cell) for cell in (CARDS, ROCM, CPU, Cell("llama", "cuda:0", "float32"))] == [2, 2, 2, 1]
    assert [is_sharded(cell) for cell in (CARDS, ROCM, CPU)] == [True, True, False]
    assert (of_rank(CARDS, 1).device, of_rank(ROCM, 1).spec, of_rank(CPU, 1)) == ("cuda:1", "rocm:1", CPU)
    assert of_rank(CARDS, 0) == CARDS


def test_one_process_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="strategy fsdp is of 2 processes, and this is one"):
        next(iter(examine(BuiltinTarget(), "anywhere", Cell("llama", "cpu", "float32", strategy="fsdp"))))


def _asked(together: Together, rank: int, said: bool, answers: object) -> None:  # of a process
    ranks.become(together, rank)
    with ranks.shared_folder("unused") as folder:
        (folder / str(rank)).touch()
        found = ranks.any_rank(said=said)
        answers.put((rank, found, sorted(path.name for path in folder.iterdir())))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("said", "agreed"), [((False, False), False), ((False, True), True), ((True, True), True)])
def test_ranks_agree_and_share_a_folder(said: tuple[bool, bool], agreed: bool) -> None:  # a parameter
    context = multiprocessing.get_context("fork")
    together, answers = Together.of(2), context.Queue()
    processes = [context.Process(target=_asked, args=(together, rank, said[rank], answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=120) for _ in processes)
    assert found == [(0, agreed, ["0", "1"]), (1, agreed, ["0", "1"])]
    for process in processes:
        process.join()


def test_a_rank_that_waits_in_vain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "SECONDS", 0.1)
    with pytest.raises(RanksApart, match="rank 0 of 2 waited for the others in vain"):
        Together.of(2).any(0, said=True)


def test_an_ordinary_process_asks_nobody() -> None:
    assert (ranks.rank_here(), ranks.size_here(), ranks.any_rank(said=True), ranks.any_rank(said=False)) == (
        0,
        1,
        True,
        False,
    )
