"""What a load took: seconds, processor, memory of the host and of every card, and what lies where."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import BuiltinTarget, Cell, simulate
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.monitoring.resources import Measures, Memory, Meter, summarize_tensors

Checkpoint = Callable[[str], str]

MIB = 2**20


def meter(do: Callable[[], object]) -> Measures:
    with Meter() as found:
        do()
    return found.measures


def test_seconds_are_wall_time_and_percent_is_of_one_core() -> None:
    def work() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    idle, busy = meter(lambda: time.sleep(0.05)), meter(work)
    assert idle.seconds >= 0.05
    assert busy.cpu_percent > idle.cpu_percent


def test_what_is_kept_on_the_host_is_in_after_and_what_is_not_in_peak() -> None:
    kept = []

    def work() -> None:
        kept.append(torch.ones(8 * MIB))
        fleeting = torch.ones(16 * MIB)
        time.sleep(0.05)
        del fleeting

    host = meter(work).host
    assert host.place == "host"
    assert host.after - host.before > 16 * MIB
    assert host.peak - host.before > 80 * MIB


def test_no_card_is_mentioned_where_none_was_used() -> None:
    with simulate("cuda:2"):
        assert meter(lambda: torch.ones(3)).cards == ()


@pytest.mark.parametrize(("machine", "device"), [("cuda:2", "cuda:1"), ("rocm-dcu:2", "cuda:1"), ("xpu:2", "xpu:1")])
def test_each_card_has_what_was_held_before_and_after_and_at_most(machine: str, device: str) -> None:
    with simulate(machine):
        old = torch.ones(MIB, device=device)
        kept = []

        def work() -> None:
            kept.append(torch.ones(2 * MIB, device=device))
            torch.ones(4 * MIB, device=device)

        measures = meter(work)
        del old
    assert measures.cards == (Memory(device, 4 * MIB, 12 * MIB, 28 * MIB),)


def test_a_peak_from_before_does_not_count() -> None:
    with simulate("cuda"):
        torch.ones(64 * MIB, device="cuda")
        kept = torch.ones(MIB, device="cuda")
        assert meter(lambda: None).cards == (Memory("cuda:0", kept.nbytes, kept.nbytes, kept.nbytes),)


def test_mps_counts_no_peak() -> None:
    kept = []
    with simulate("mps"):
        memory = meter(lambda: kept.append(torch.ones(MIB, device="mps"))).cards[0]
    assert memory == Memory("mps", 0, 4 * MIB, 4 * MIB)


def test_what_raises_is_measured_and_goes_on() -> None:
    with pytest.raises(RuntimeError, match="no kernel"), Meter() as found:
        raise RuntimeError("no kernel")
    assert found.measures.seconds > 0


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    meter(lambda: None)
    assert threading.active_count() == before


class TestSummary:
    def test_tells_dtypes_and_bytes_by_device(self) -> None:
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64, device="meta").bfloat16())
        model.register_buffer("counts", torch.zeros(3, dtype=torch.long))
        with simulate("cuda:2"):
            model.add_module("card", nn.Linear(512, 512, device="cuda:1", dtype=torch.float16))
            found = summarize_tensors(model)
        assert found == (
            "cpu: 2 float32 and 1 int64 tensors, 16.3 KiB; cuda:1: 2 float16 tensors, 513.0 KiB; "
            "meta: 2 bfloat16 tensors, no data"
        )

    def test_counts_a_shared_tensor_once(self) -> None:
        model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
        model[1].weight = model[0].weight
        assert summarize_tensors(model) == "cpu: 1 float32 tensors, 16.0 KiB"

    def test_has_megabytes_where_there_are_some(self) -> None:
        assert summarize_tensors(nn.Linear(1024, 1024, bias=False)).endswith("4.0 MiB")


class TestALoad:
    def test_is_measured_and_its_model_summarized(self, checkpoint: Checkpoint) -> None:
        path = Path(checkpoint("llama"))
        cell = Cell("llama", "cuda:0", "float16", strategy="split", simulated=True)
        with simulate("cuda:2"):
            loaded = Loaded.load(BuiltinTarget(), path, cell)
            measures = loaded.measures
            assert measures is not None
            places = {str(parameter.device) for parameter in loaded.model.parameters()}
        assert loaded.seconds == measures.seconds
        assert {memory.place for memory in measures.cards} == places == {"cuda:0", "cuda:1"}
        assert all(memory.peak >= memory.after > memory.before == 0 for memory in measures.cards)
        assert all(place in measures.summary for place in places)

    def test_that_fails_has_no_measures(self) -> None:
        class Failing:
            def load(self, *_: object) -> Any:
                raise RuntimeError("no kernel")

        assert Loaded.load(Failing(), Path("somewhere"), Cell("llama", "cpu", "float32")).measures is None

    def test_does_not_keep_its_model(self) -> None:
        class Small:
            def load(self, *_: object) -> Any:
                return nn.Linear(1, 1)

        loaded = Loaded.load(Small(), Path("somewhere"), Cell("llama", "cpu", "float32"))
        model = weakref.ref(loaded.model)
        loaded.release()
        assert model() is None
        assert loaded.measures is not None


def test_generation_is_measured(checkpoint: Checkpoint) -> None:
    model = BuiltinTarget().load(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    measures = generate_traced(BuiltinTarget(), model, [[1, 2, 3]], 4).measures
    assert measures is not None
    assert measures.seconds > 0


def test_generation_that_raises_is_not_measured(checkpoint: Checkpoint) -> None:
    class Raising(BuiltinTarget):
        def generate(self, *_: object) -> Any:
            raise RuntimeError("no kernel")

    model = BuiltinTarget().load(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    assert generate_traced(Raising(), model, [[1, 2, 3]], 4).measures is None


MEASURES = Measures(
    1.23456,
    87.654,
    Memory("host", 100 * MIB, 200 * MIB, 300 * MIB),
    42.5,
    (Memory("cuda:1", 0, MIB, 2 * MIB),),
    "cuda:1: 3 float16 tensors, 1.0 MiB",
)


def test_properties_are_flat_and_say_what_was_done() -> None:
    properties = MEASURES.properties("load")
    assert properties == {
        "llm.load_seconds": 1.2346,
        "llm.load_cpu_percent": 87.7,
        "llm.load_host_percent": 42.5,
        "llm.load_memory_host_before": 100 * MIB,
        "llm.load_memory_host_after": 200 * MIB,
        "llm.load_memory_host_peak": 300 * MIB,
        "llm.load_memory_cuda1_before": 0,
        "llm.load_memory_cuda1_after": MIB,
        "llm.load_memory_cuda1_peak": 2 * MIB,
        "llm.load_devices": "cuda:1: 3 float16 tensors, 1.0 MiB",
    }
    assert json.loads(json.dumps(properties)) == properties


def test_in_words() -> None:
    assert str(MEASURES) == (
        "1.235 s, 88 % of a core; host 100.0 -> 200.0 MiB, peak 300.0; cuda:1 0.0 -> 1.0 MiB, peak 2.0; "
        "cuda:1: 3 float16 tensors, 1.0 MiB"
    )
