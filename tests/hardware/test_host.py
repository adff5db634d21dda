"""What is read of the machine without PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import pytest

from pytest_llmdevice.hardware import host


def test_versions_are_those_of_the_installed_distributions() -> None:
    versions = host.installed_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == importlib.metadata.version("torch")


def test_a_distribution_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DISTRIBUTIONS", ("no-such-distribution-at-all",))
    # Libraries that quantize are asked for whatever the list says.
    assert set(host.installed_versions()) <= {"python", "bitsandbytes"}


def test_visibility_variables_are_reported_as_set_even_when_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in host.VISIBILITY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1,2")
    assert host.visible() == {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "1,2"}


def test_memory_is_total_and_available() -> None:
    total, available = host.memory()
    assert total >= available > 0


def test_a_lower_limit_of_the_control_group_is_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda _: "1048576\n")
    assert host.memory() == (1048576, 1048576)


def test_no_limit_of_the_control_group_leaves_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda _: "max\n")
    assert host.memory()[0] > 1048576


def test_features_of_an_arm_cpu_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    info = "processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm crc32\n"
    monkeypatch.setattr(host, "_read", lambda path: info if path == "/proc/cpuinfo" else "")
    assert host.cpu({}, "DEFAULT").features == ("asimd", "bf16", "i8mm", "sve")


def test_where_the_system_lists_no_features_pytorch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda _: "")
    capabilities = {
        "avx2": True,
        "avx512_f": True,
        "amx_bf16": False,
        "cpu_name": "Some CPU",
        "num_sockets": 1,
    }
    found = host.cpu(capabilities, "AVX512")
    assert found.features == ("avx2", "avx512f")
    assert found.torch_capability == "AVX512"
    assert found.name == "Some CPU" or sys.platform == "darwin"


def test_a_cpu_of_an_unknown_system_is_still_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda _: "")
    found = host.cpu({}, "")
    assert found.logical == os.cpu_count()
    assert found.features == ()


@pytest.mark.parametrize(
    ("files", "version"),
    [
        (
            {
                "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "
                "570.124.06  Release Build\nGCC version: 11.4.0\n"
            },
            "570.124.06",
        ),
        ({"/sys/module/amdgpu/version": "6.10.5\n"}, "6.10.5"),
        ({}, ""),
    ],
)
def test_the_driver_version_is_read_where_the_system_tells_it(
    files: dict[str, str], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_read", lambda path: files.get(path, ""))
    assert host.driver_version() == version
