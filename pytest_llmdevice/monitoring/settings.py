"""Detects and reverts changes of single settings of the process: gradients, threads, signals, streams and the like."""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmdevice.monitoring.change import Change, Comparison


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that belongs to the whole process.

    Attributes:
        kind: the kind of its change, see `Change.kind`.
        name: which one, in words.
        read: gives its value, to be compared with `==`; raises where there is none here.
        write: sets it again; None where it can be set only once.
        words: its value in words.
    """

    kind: str
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None
    words: Callable[[Any], str] = str


def settings_of_process() -> Comparison:
    """Watch every setting of `settings`."""
    watched = [(setting, value) for setting in settings() for value in _value(setting)]
    hooks = _hooks()

    def compare() -> Iterator[Change]:
        for setting, before in watched:
            for after in _value(setting):
                if after == before:
                    continue
                if setting.write is not None:
                    with suppress(Exception):
                        setting.write(before)
                yield Change(setting.kind, setting.name, setting.words(before), setting.words(after))
        for (where, known), (_, now) in zip(hooks, _hooks(), strict=True):
            if now != known:
                new = [kind for key, kind in now.items() if key not in known]
                registry = _registries()[where]
                entries = {**registry, **known}
                registry.clear()
                registry.update({key: entries[key] for key in known})
                yield Change("hook", where, f"{len(known)} hooks", f"{len(now)}" + (f", {new[-1]!r}" if new else ""))

    return compare


def _value(setting: Setting) -> Sequence[Any]:
    try:
        return (setting.read(),)
    except Exception:  # noqa: BLE001  # a build of torch or a system without it
        return ()


def settings() -> tuple[Setting, ...]:
    """The settings that this process has."""
    return (*_of_torch(), *_of_python())


def _on(value: object) -> str:
    return "on" if value else "off"


def _of_torch() -> Iterator[Setting]:
    import torch

    grad: Any = torch.set_grad_enabled
    yield Setting("gradients", "inference mode", torch.is_inference_mode_enabled, _set_inference_mode, _on)
    yield Setting("gradients", "gradients", torch.is_grad_enabled, grad, _on)
    anomaly: Any = torch.autograd.set_detect_anomaly
    yield Setting("gradients", "anomaly detection", torch.is_anomaly_enabled, anomaly, _on)
    yield Setting("threads", "threads of torch", torch.get_num_threads, torch.set_num_threads)
    yield Setting("threads", "threads between operations", torch.get_num_interop_threads, None)
    yield Setting("determinism", "deterministic algorithms", _deterministic, _set_deterministic)
    backends: Any = torch.backends
    for name in ("enabled", "benchmark", "deterministic"):
        yield _attribute("determinism", "torch.backends.cudnn", backends.cudnn, name)
    for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        yield _attribute("precision", "torch.backends.cuda.matmul", backends.cuda.matmul, name)
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        read, write = (getattr(backends.cuda, form.format(name), None) for form in ("{}_sdp_enabled", "enable_{}_sdp"))
        if read is not None and write is not None:
            yield Setting("kernels", f"torch.backends.cuda.enable_{name}_sdp", read, write, _on)
    shared: Any = torch.multiprocessing
    yield Setting("processes", "sharing of tensors", shared.get_sharing_strategy, shared.set_sharing_strategy)


def _attribute(kind: str, of: str, owner: Any, name: str) -> Setting:
    return Setting(kind, f"{of}.{name}", lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _deterministic() -> tuple[bool, bool]:
    import torch

    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(value: tuple[bool, bool]) -> None:
    import torch

    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


_entered: Final[list[Any]] = []
"""Contexts that undo others that nobody left, which end with what they are made of."""


def _set_inference_mode(on: bool) -> None:
    import torch

    context: Any = torch.inference_mode(on)
    context.__enter__()
    _entered.append(context)


SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "SIGABRT")


def _of_python() -> Iterator[Setting]:
    for name in SIGNALS:
        number: Any = getattr(signal, name, None)
        # Handlers of C, which Python does not know, cannot be set again.
        if number is not None and signal.getsignal(number) is not None:
            yield Setting("signal", f"handler of {name}", _handler(number), _set_handler(number), _named)
    yield Setting("signal", "faulthandler", faulthandler.is_enabled, _set_faulthandler, _on)
    yield Setting("stream", "sys.excepthook", _excepthook, _writer(sys, "excepthook"), _named)
    for name in ("stdout", "stderr", "stdin", "displayhook"):
        yield Setting("stream", f"sys.{name}", _reader(sys, name), _writer(sys, name), _named)
    yield Setting("stream", "threading.excepthook", _reader(threading, "excepthook"), _writer(threading, "excepthook"))
    yield Setting("logging", "level of the root logger", lambda: logging.root.level, logging.root.setLevel)
    yield Setting("logging", "logging.disable", lambda: logging.root.manager.disable, logging.disable)
    handlers = list(logging.root.handlers)
    yield Setting(
        "logging",
        "handlers of the root logger",
        lambda: all(handler in logging.root.handlers for handler in handlers),
        lambda _: _add_handlers(handlers),
        lambda there: "as they were" if there else "some were removed",
    )
    filters = list(warnings.filters)
    yield Setting("logging", "all warnings", lambda: _overruled(filters), lambda _: _put_back(filters), str)
    every = locale.LC_ALL
    yield Setting("locale", "locale", lambda: locale.setlocale(every), lambda value: locale.setlocale(every, value))
    yield Setting("limit", "sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting("limit", "default timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout)
    yield Setting("collector", "thresholds of garbage collection", gc.get_threshold, lambda v: gc.set_threshold(*v))
    yield Setting(
        "processes",
        "start method of processes",
        # Whoever asks which one it is sets the default.
        lambda: multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0],
        lambda value: multiprocessing.set_start_method(value, force=True),
    )
    affinity: Any = getattr(os, "sched_getaffinity", None)
    if affinity is not None:
        yield Setting(
            "threads",
            "processors that the process may use",
            lambda: frozenset(affinity(0)),
            lambda value: os.sched_setaffinity(0, value),
            lambda value: ", ".join(map(str, sorted(value))),
        )


def _add_handlers(handlers: Sequence[logging.Handler]) -> None:
    for handler in handlers:
        logging.root.addHandler(handler)


def _reader(owner: Any, name: str) -> Callable[[], Any]:
    return lambda: getattr(owner, name)


def _excepthook() -> Any:
    """The hook for what nobody catches; that of PyTorch's process groups says the rank and calls the one before."""
    hook = sys.excepthook
    while str(getattr(hook, "__module__", "")).startswith("torch.distributed"):
        held = (cell.cell_contents for cell in getattr(hook, "__closure__", None) or ())
        before = next((each for each in held if callable(each)), None)
        if before is None:
            break
        hook = before
    return hook


def _writer(owner: Any, name: str) -> Callable[[Any], None]:
    return lambda value: setattr(owner, name, value)


def _handler(number: Any) -> Callable[[], Any]:
    return lambda: signal.getsignal(number)


def _set_handler(number: Any) -> Callable[[Any], object]:
    # Raises outside of the main thread, where nobody can have set one either.
    return lambda handler: signal.signal(number, handler)


def _set_faulthandler(on: bool) -> None:
    if on:
        faulthandler.enable(sys.__stderr__ or sys.stderr)
    else:
        faulthandler.disable()


def descriptors() -> Comparison:
    """Watch what is open as standard output and standard error: whatever code in C writes goes there."""
    saved = []
    for number in (1, 2):
        # A process may have none.
        with suppress(OSError):
            saved.append((number, os.dup(number)))

    def compare() -> Iterator[Change]:
        while saved:
            number, copy = saved.pop()
            same = False
            with suppress(OSError):
                same = os.path.sameopenfile(number, copy)
            if not same:
                os.dup2(copy, number)
                yield Change("stream", f"file descriptor {number}", "as it was", "closed, or another file")
            os.close(copy)

    return compare


def _overruled(before: list[Any]) -> str:
    """What a filter for every warning does now, in front of those of `before`; or that they are in force."""
    now = _in_force(warnings.filters)
    if all(entry in now for entry in _in_force(before)):
        return "filtered as they were"
    action = now[-1][0] if now else "default"
    return {"ignore": "hidden", "error": "raised"}.get(action, f"shown, {action}")


def _in_force(filters: Sequence[Any]) -> list[Any]:
    """The filters up to the first that fits every warning: those behind it are never asked."""
    for place, (_, message, category, module, line) in enumerate(filters):
        if message is None and category is Warning and module is None and not line:
            return list(filters[: place + 1])
    return list(filters)


def _put_back(filters: list[Any]) -> None:
    now: Any = warnings.filters
    now[:] = filters
    # Adding one tells the interpreter that they have changed.
    warnings.simplefilter("default", _NoWarning)


class _NoWarning(Warning):
    """Of no warning that anybody gives."""


def _named(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None)
    return str(name) if isinstance(name, str) else type(value).__name__


def _registries() -> dict[str, Any]:
    """The hooks that torch calls for all modules, by the names of where it keeps them."""
    from torch.nn.modules import module

    return {
        f"torch.nn.modules.module.{name}": value
        for name, value in sorted(vars(module).items())
        if name.startswith("_global_") and name.endswith("hooks") and isinstance(value, dict)
    }


def _hooks() -> list[tuple[str, dict[Any, Any]]]:
    return [(name, dict(registry)) for name, registry in _registries().items()]
