"""The probe: what a real one finds, and what becomes of a child that crashes, hangs or talks nonsense."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from covering import NATIVE

from pytest_llmdevice.hardware import Inventory, start
from pytest_llmdevice.hardware.probe import MARKER, STAGE
from pytest_llmdevice.matrix import vocabulary

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
LONG = 300.0
"""Seconds that no test comes near: a limit that must not decide."""


def child(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    """Whether the process is dead; one that nobody has waited for yet counts."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    for _ in range(3000):
        if gone(pid):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} still runs")


def test_a_real_probe_finds_the_cpu_and_computes_on_it(this_machine: Inventory) -> None:
    assert not this_machine.failure
    cpu = this_machine.devices[0]
    assert (cpu.device, cpu.kind) == ("cpu", "cpu")
    assert cpu.passed("float32"), cpu.dtypes
    assert cpu.memory > cpu.memory_free > 0
    assert this_machine.cpu.logical > 0


def test_a_real_probe_tries_every_dtype_and_quantization(this_machine: Inventory) -> None:
    for device in this_machine.devices:
        assert set(device.dtypes) == {"float32", "bfloat16", "float16"}
        assert set(device.quantization) == set(vocabulary.quantizations()) - {"none"}
        for smoke_test in (*device.dtypes.values(), *device.quantization.values()):
            assert smoke_test.ok != bool(smoke_test.error), smoke_test


def test_a_real_probe_quantizes_on_the_cpu(this_machine: Inventory) -> None:
    pytest.importorskip("bitsandbytes")
    assert [name for name in NATIVE[1:] if not this_machine.devices[0].quantization[name].ok] == []


def test_a_real_probe_reports_the_installed_versions(this_machine: Inventory) -> None:
    for name in ("transformers", "accelerate", "tokenizers", "safetensors", "huggingface_hub"):
        assert this_machine.versions[name] == importlib.metadata.version(name)
    assert this_machine.versions["torch"].startswith(importlib.metadata.version("torch").partition("+")[0])


def test_a_real_inventory_survives_json(this_machine: Inventory) -> None:
    assert Inventory.from_json(this_machine.to_json()) == this_machine


@pytest.mark.parametrize("module", ["torch", "pydantic", "psutil"])
def test_importing_the_room_does_not_import(module: str) -> None:
    code = f"import sys, pytest_llmdevice.hardware; assert {module!r} not in sys.modules"
    subprocess.run(child(code), check=True)


def test_probing_does_not_import_torch_in_the_parent() -> None:
    answer = f"print('{MARKER}'); print('{{}}')"
    code = (
        "import sys; from pytest_llmdevice.hardware import start\n"
        f"assert not start(command=[sys.executable, '-c', {answer!r}]).result().failure\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(child(code), check=True)


@POSIX
def test_a_child_killed_by_a_signal_is_a_failure_that_names_it() -> None:
    found = start(LONG, child("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")).result()
    assert found.failure == "crashed with signal 11 (SIGSEGV)"
    assert found.devices == ()


@POSIX
def test_a_crash_is_attributed_to_the_smoke_test_under_way() -> None:
    lines = f"{STAGE}cuda:0 bfloat16\n{STAGE}cuda:1 nf4\noops\n"
    found = start(LONG, child(f"import os; os.write(2, {lines.encode()!r}); os.abort()")).result()
    assert found.failure == "crashed with signal 6 (SIGABRT) during: cuda:1 nf4; last output: oops"


def test_an_exit_code_is_a_failure_with_the_last_lines_of_stderr() -> None:
    found = start(LONG, child("import sys; print('first\\n\\nlast', file=sys.stderr); sys.exit(3)")).result()
    assert found.failure == "ended with exit code 3; last output: first | last"


def test_a_failed_probe_still_reports_the_installed_versions() -> None:
    found = start(LONG, child("raise SystemExit(1)")).result()
    assert found.versions["torch"] == importlib.metadata.version("torch")


def test_a_child_that_hangs_is_killed_at_the_limit() -> None:
    process = start(0.2, child("import time; time.sleep(600)"))
    assert process._process is not None
    pid = process._process.pid
    assert process.result().failure == "timed out after 0.2 s"
    assert gone(pid)


def test_a_result_asked_for_after_the_limit_is_that_of_a_child_that_ended_before() -> None:
    process = start(LONG, child(f"print('{MARKER}'); print('{{}}')"))
    assert process._process is not None
    process._process.wait()
    process._deadline = time.monotonic() - 1
    assert process.result() == Inventory()


def test_output_without_an_inventory_is_a_failure() -> None:
    assert start(LONG, child("print('hello')")).result().failure == "wrote no inventory"


@pytest.mark.parametrize("answer", ["{not json", '{"devices": 7}', "", '{"devices": [{"kind": "cpu"}]}'])
def test_an_unreadable_inventory_is_a_failure(answer: str) -> None:
    found = start(LONG, child(f"print({MARKER!r}); print({answer!r})")).result()
    assert found.failure.startswith("wrote an unreadable inventory (")


def test_bytes_that_are_no_text_are_a_failure() -> None:
    found = start(LONG, child("import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff')")).result()
    assert found.failure.startswith("wrote no inventory")


def test_a_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    found = start(LONG, [str(tmp_path / "nothing")]).result()
    assert found.failure.startswith("the probe could not be started: ")


def test_chatter_on_stdout_before_the_inventory_is_ignored() -> None:
    found = start(LONG, child(f"print('{{}} noise'); print('{MARKER}'); print('{{\"failure\": \"x\"}}')")).result()
    assert found == Inventory(failure="x")


def test_libraries_that_write_to_stdout_do_not_reach_the_answer() -> None:
    code = (
        "import os\n"
        "from pytest_llmdevice.hardware import Inventory, probe_worker\n"
        "def take():\n"
        "    os.write(1, b'from C'); print('from Python', flush=True)\n"
        "    return Inventory(visible={'A': 'b'})\n"
        "probe_worker.take = take; probe_worker.main()"
    )
    assert start(LONG, child(code)).result() == Inventory(visible={"A": "b"})


def test_what_libraries_write_to_stdout_before_a_crash_is_kept() -> None:
    code = (
        "import os\n"
        "from pytest_llmdevice.hardware import probe_worker\n"
        "def take():\n"
        "    os.write(1, b'last words of a driver'); os._exit(4)\n"
        "probe_worker.take = take; probe_worker.main()"
    )
    assert start(LONG, child(code)).result().failure == "ended with exit code 4; last output: last words of a driver"


def test_the_child_sees_the_visibility_variables_of_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    code = (
        "from pytest_llmdevice.hardware import Inventory, host, probe_worker\n"
        "probe_worker.take = lambda: Inventory(visible=host.visible()); probe_worker.main()"
    )
    assert start(LONG, child(code)).result().visible["CUDA_VISIBLE_DEVICES"] == "3"


def test_the_child_sees_the_import_path_of_the_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = start(LONG, child(f"import only_here; print('{MARKER}'); print('{{}}')")).result()
    assert not found.failure


def test_a_torch_that_cannot_be_imported_is_a_failure() -> None:
    run = "from pytest_llmdevice.hardware import probe_worker; probe_worker.main()"
    code = f"import sys; sys.modules['torch'] = None\n{run}"
    failure = start(LONG, child(code)).result().failure
    assert failure.startswith("torch cannot be imported: ModuleNotFoundError: "), failure


def test_without_bitsandbytes_the_dtypes_are_still_probed() -> None:
    code = (
        "from pytest_llmdevice.hardware import host, probe_worker\n"
        "found = host.installed_versions()\n"
        "found.pop('bitsandbytes', None)\n"
        "host.installed_versions = lambda: found\n"
        "probe_worker.main()"
    )
    cpu = start(LONG, child(code)).result().devices[0]
    assert cpu.passed("float32")
    assert {cpu.quantization[name].error for name in NATIVE[1:]} == {
        "bitsandbytes is not installed; install pytest-llmdevice[bitsandbytes]"
    }


def test_a_bitsandbytes_that_cannot_be_imported_is_told_from_one_that_is_missing() -> None:
    pytest.importorskip("bitsandbytes")
    code = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "from pytest_llmdevice.hardware import probe_worker; probe_worker.main()"
    )
    cpu = start(LONG, child(code)).result().devices[0]
    assert cpu.passed("float32")
    assert cpu.quantization["nf4"].error.startswith("bitsandbytes cannot be imported: ModuleNotFoundError: ")


def test_the_result_is_read_once() -> None:
    process = start(LONG, child(f"print('{MARKER}'); print('{{}}')"))
    assert process.result() is process.result()


def test_closing_an_unused_probe_kills_it() -> None:
    process = start(LONG, child("import time; time.sleep(600)"))
    assert process._process is not None
    pid = process._process.pid
    process.close()
    assert gone(pid)
    assert process.result().failure == "the probe was stopped before it ended"


@POSIX
def test_closing_kills_the_children_of_the_child(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"part = pathlib.Path({str(note) + '.part'!r}); part.write_text(str(inner.pid))\n"
        f"part.rename({str(note)!r})\n"
        "time.sleep(600)"
    )
    with start(LONG, child(code)):
        while not note.exists():
            time.sleep(0.01)
    wait_until_gone(int(note.read_text()))


def test_dropping_an_unused_probe_kills_it() -> None:
    process = start(LONG, child("import time; time.sleep(600)"))
    assert process._process is not None
    pid = process._process.pid
    del process
    gc.collect()
    wait_until_gone(pid)


def test_an_interrupted_wait_kills_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(LONG, child("import time; time.sleep(600)"))
    running = process._process
    assert running is not None
    real_wait = running.wait

    def interrupted(timeout: float | None = None) -> int:
        if timeout is None:
            return real_wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.result()
    assert gone(running.pid)


@POSIX
def test_a_fork_of_the_parent_does_not_end_the_probe() -> None:
    code = (
        "import os, sys\n"
        "from pytest_llmdevice.hardware import start\n"
        "process = start(300, [sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "assert process._process.poll() is None\n"
    )
    # The parent's own child is not the fork: wait() returns the first that ends, and only the fork does.
    subprocess.run(child(code), check=True)


def test_no_file_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start(LONG, child("print('hello')")).result()
    start(LONG, child("import time; time.sleep(600)")).close()
    assert list(tmp_path.iterdir()) == []


def test_the_child_has_its_own_process_group() -> None:
    if not hasattr(os, "getpgid"):
        pytest.skip("process groups are POSIX")
    with start(LONG, child("import time; time.sleep(600)")) as process:
        assert process._process is not None
        assert os.getpgid(process._process.pid) == process._process.pid != os.getpgid(0)
