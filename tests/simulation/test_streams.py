from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Stream as AnyStreamImportedBefore

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.machine import Machine

Drive = Callable[[str], Machine]
# Much of it has no types.
CUDA: Any = torch.cuda
IMPORTED_BEFORE: Any = SimpleNamespace(Stream=torch.cuda.Stream, Event=torch.cuda.Event)

FAMILIES = {"cuda:2": "cuda", "xpu:2": "xpu"}


@pytest.fixture(params=FAMILIES)
def family(drive: Drive, request: pytest.FixtureRequest) -> Any:
    drive(request.param)
    return getattr(torch, FAMILIES[request.param])


def test_a_stream_belongs_to_a_card(family: Any) -> None:
    kind = family.__name__.removeprefix("torch.")

    assert family.Stream().device == torch.device(kind, 0)
    assert family.Stream(device=1).device == family.Stream(f"{kind}:1").device == torch.device(kind, 1)
    with family.device(1):
        assert family.Stream().device_index == 1
    assert family.Stream().query()
    family.Stream().synchronize()


def test_a_stream_is_itself_and_no_other(family: Any) -> None:
    one, other = family.Stream(), family.Stream()
    same = family.Stream(stream_id=one.stream_id, device_index=one.device_index, device_type=one.device_type)

    assert one != other
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, other, same}) == 2
    assert one != "stream"
    assert isinstance(one, family.Stream)
    assert isinstance(one, torch.Stream)
    assert isinstance(one, AnyStreamImportedBefore)


def test_the_current_stream_changes_in_a_context(family: Any) -> None:
    default = family.current_stream()
    stream, elsewhere = family.Stream(), family.Stream(device=1)

    with family.stream(stream):
        assert family.current_stream() == stream
        with family.stream(elsewhere):
            assert family.current_stream() == elsewhere
            assert family.current_device() == 1
        assert family.current_stream() == stream
        assert family.current_device() == 0
    assert family.current_stream() == default
    assert family.current_stream(1) == family.current_stream(1)
    with family.stream(None):
        assert family.current_stream() == default


def test_another_thread_has_its_own_current_stream(family: Any) -> None:
    seen: list[Any] = []
    default = family.current_stream()
    family.set_stream(family.Stream())

    thread = threading.Thread(target=lambda: seen.append(family.current_stream()))
    thread.start()
    thread.join()

    assert seen == [default]


def test_an_event_measures_the_time_between_records(family: Any) -> None:
    start, end = family.Event(enable_timing=True), family.Event(enable_timing=True)

    start.record()
    time.sleep(0.01)
    end.record(family.Stream())

    assert 10 <= start.elapsed_time(end) < 5000
    assert end.query()
    end.synchronize()
    start.wait(family.Stream())


def test_streams_wait_for_events_and_for_each_other(family: Any) -> None:
    stream = family.Stream()

    event = stream.record_event()
    stream.wait_event(event)
    family.current_stream().wait_stream(stream)

    assert isinstance(event, family.Event)
    assert isinstance(event, torch.Event)
    assert stream.record_event(event) is event
    assert event.device == stream.device


def test_an_event_that_keeps_no_time_cannot_tell_it(family: Any) -> None:
    timed, untimed, late = family.Event(enable_timing=True), family.Event(), family.Event(enable_timing=True)
    timed.record()
    untimed.record()

    with pytest.raises(ValueError, match=re.escape("Both events must be created with argument 'enable_timing=True'.")):
        timed.elapsed_time(untimed)
    with pytest.raises(ValueError, match="Both events must be recorded before calculating elapsed time"):
        timed.elapsed_time(late)


def test_an_event_stays_on_its_card(family: Any) -> None:
    event = family.Event()
    event.record()

    with pytest.raises(RuntimeError, match="Event device 0 does not match recording stream's device 1"):
        event.record(family.Stream(device=1))


def test_no_stream_is_on_a_card_that_is_not_there(family: Any) -> None:
    with pytest.raises(RuntimeError, match=r"invalid device ordinal|but got 2"):
        family.Stream(device=2)
    with pytest.raises(ValueError, match="device, but got: cpu"):
        family.Stream(device="cpu")


def test_cudas_streams_have_a_priority_and_a_handle(drive: Drive) -> None:
    drive("cuda")

    assert CUDA.Stream.priority_range() == (0, -3)
    assert CUDA.Stream(priority=-1).priority == -1
    assert CUDA.Stream(priority=-99).priority == -3
    assert CUDA.Stream(priority=7).priority == 0
    assert CUDA.default_stream().cuda_stream == 0
    stream = CUDA.Stream()
    assert stream._as_parameter_.value == stream.cuda_stream == stream.stream_id
    assert repr(stream) == f"<torch.cuda.Stream device=cuda:0 cuda_stream={stream.cuda_stream:#x}>"


def test_a_stream_of_another_library_keeps_its_handle(drive: Drive) -> None:
    drive("cuda:2")

    stream: Any = CUDA.ExternalStream(0xABC0, device=1)

    assert stream.cuda_stream == 0xABC0
    assert stream.device == torch.device("cuda:1")
    assert isinstance(stream, CUDA.ExternalStream)
    if hasattr(CUDA, "get_stream_from_external"):
        assert CUDA.get_stream_from_external(0xABC0, 1) == stream


def test_names_imported_before_make_the_same(drive: Drive) -> None:
    drive("cuda")

    assert isinstance(IMPORTED_BEFORE.Stream(), CUDA.Stream)
    assert isinstance(IMPORTED_BEFORE.Event(enable_timing=True), CUDA.Event)
    if CUDA.Stream.__mro__[-2].__module__ == "torch._utils":
        # Where PyTorch was built without CUDA, its class can be a base.
        assert isinstance(CUDA.Stream(), IMPORTED_BEFORE.Stream)


def test_cudas_events_cannot_leave_the_process(drive: Drive) -> None:
    drive("cuda")
    event: Any = CUDA.Event(True, False, True)

    assert repr(event) == "<torch.cuda.Event uninitialized>"
    event.record()
    assert repr(event) == f"<torch.cuda.Event {event.cuda_event:#x}>"
    for share in (event.ipc_handle, lambda: CUDA.Event.from_ipc_handle(torch.device("cuda"), b"")):
        with pytest.raises(SimulationError, match="cannot be shared with another process"):
            share()


def test_the_stream_of_any_kind_can_be_a_cards(drive: Drive) -> None:
    drive("cuda:2")

    here: Any = torch.Stream("cuda:1")
    default: Any = torch.Stream()
    cpu: Any = torch.Stream(device="cpu")

    assert (here.device, default.device, cpu.device.type) == (torch.device("cuda:1"), torch.device("cuda:0"), "cpu")
    assert all(isinstance(stream, torch.Stream) for stream in (here, default, cpu))
    assert not isinstance(1, torch.Stream)
    assert issubclass(CUDA.Stream, torch.Stream)
    assert torch.Stream(here.stream_id, 1, 1) == here
    assert repr(here) == f"torch.Stream device_type=cuda, device_index=1, stream_id={here.stream_id}"
    with here:
        assert CUDA.current_stream() == here
        assert CUDA.current_device() == 1
    assert CUDA.current_device() == 0
    with pytest.raises(RuntimeError, match="PyTorch is not linked with support for xpu devices"):
        torch.Stream("xpu")


def test_the_event_of_any_kind_can_be_a_cards(drive: Drive) -> None:
    drive("cuda")

    start: Any = torch.Event("cuda", enable_timing=True)
    end: Any = torch.Event(enable_timing=True)
    cpu: Any = torch.Event("cpu")

    start.record()
    end.record(CUDA.current_stream())
    assert start.elapsed_time(end) > 0
    assert start.device == torch.device("cuda:0")
    assert cpu.device.type == "cpu"
    assert isinstance(start, torch.Event)


def test_a_class_derived_from_the_stream_is_left_alone(drive: Drive) -> None:
    drive("cuda")

    class Mine(torch.Stream):
        pass

    assert isinstance(Mine("cpu"), Mine)
    assert not isinstance(CUDA.Stream(), Mine)
    assert not issubclass(CUDA.Stream, Mine)
