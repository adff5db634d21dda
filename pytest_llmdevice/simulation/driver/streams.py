"""Replaces PyTorch's stream and event classes by those of simulated cards."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from pytest_llmdevice.simulation.events import CardEvent
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.streams import CardStream, Streams


def install(machine: Machine, patches: Patches) -> Streams:
    """Make `torch.Stream`, `torch.Event` and the classes of `torch.cuda` or `torch.xpu` create simulated ones."""
    streams = Streams(machine)
    event = _subclass(CardEvent, "Event", "torch", {"_streams": streams})
    stream = _subclass(CardStream, "Stream", "torch", {"_streams": streams, "_event": event})
    if machine.device_type != "mps":
        _install_family(getattr(torch, machine.device_type), stream, event, patches)
    patches.set(torch, "Stream", _factory(machine, torch.Stream, stream))
    patches.set(torch, "Event", _factory(machine, torch.Event, event))
    return streams


def generic_stream(streams: Streams, stream_id: int, index: int) -> Any:
    """A `torch.Stream` of a card."""
    factory: Any = torch.Stream
    return factory.simulated(stream_id=stream_id, device_index=index, device_type=streams.code)


def _install_family(module: ModuleType, stream: Any, event: Any, patches: Patches) -> None:
    real = module.streams
    name = module.__name__ + ".streams"
    members: dict[str, Any] = {"__new__": _new_event, "_generic": False}
    family_event = _subclass(event, "Event", name, members, real.Event)
    members = {"_event": family_event, "_generic": False}
    family_stream = _subclass(stream, "Stream", name, members, real.Stream)
    replaced = {"Stream": family_stream, "Event": family_event}
    if hasattr(real, "ExternalStream"):
        members = {"__new__": _new_external}
        replaced["ExternalStream"] = _subclass(family_stream, "ExternalStream", name, members, real.ExternalStream)
    for attribute, replacement in replaced.items():
        # Code that imported the class by name before still calls it.
        patches.set(getattr(real, attribute), "__new__", _redirect(replacement))
        for owner in (real, module):
            patches.set(owner, attribute, replacement)


def _subclass(base: Any, name: str, module: str, members: dict[str, Any], real: Any = None) -> Any:
    """A subclass of `base` and of PyTorch's class `real`, so that `isinstance` is true for names imported before.

    In a PyTorch that is built for the cards, `real` derives from `torch.Stream` or `torch.Event` and has a C layout
    that cannot be combined with that of `base`; it is then left out.
    """
    bases = (base,) if real is None or issubclass(real, (torch.Stream, torch.Event)) else (base, real)
    return type(base)(name, bases, {"__module__": module, "__qualname__": name, **members})


def _redirect(replacement: Any) -> Callable[..., Any]:
    def new(_cls: type, *args: Any, **kwargs: Any) -> Any:
        return replacement(*args, **kwargs)

    return new


def _new_event(
    cls: type[CardEvent],
    enable_timing: bool = False,
    blocking: bool = False,
    interprocess: bool = False,
    external: bool = False,
) -> CardEvent:
    return CardEvent.__new__(
        cls, enable_timing=enable_timing, blocking=blocking, interprocess=interprocess, external=external
    )


def _new_external(
    cls: type[CardStream], stream_ptr: int, device: torch.device | str | int | None = None, **kwargs: Any
) -> CardStream:
    return CardStream.__new__(cls, device, stream_ptr=stream_ptr, **kwargs)


class _Factory(type):
    """The metaclass of `torch.Stream` or `torch.Event` in a simulation: it makes objects of both kinds."""

    machine: Machine
    real: Any
    simulated: Any

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "simulated" not in vars(cls):  # a user's subclass of it
            return super().__call__(*args, **kwargs)
        if len(args) == 3:
            kwargs.update(zip(("stream_id", "device_index", "device_type"), args, strict=True))
            args = ()
        if "stream_id" in kwargs:
            on_card = kwargs.get("device_type") == cls.simulated._streams.code
            return (cls.simulated if on_card else cls.real)(**kwargs)
        device = args[0] if args else kwargs.get("device")
        if isinstance(device, (str, torch.device)) and torch.device(device).type != cls.machine.device_type:
            return cls.real(*args, **kwargs)
        kwargs.pop("device", None)
        return cls.simulated(None if device is None else cls.machine.resolve(device), *args[1:], **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real) if "real" in vars(cls) else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.real) if "real" in vars(cls) else super().__subclasscheck__(subclass)


def _factory(machine: Machine, real: Any, simulated: Any) -> Any:
    members = {"machine": machine, "real": real, "simulated": simulated, "__module__": "torch", "__doc__": real.__doc__}
    return _Factory(real.__name__, (real,), members)
