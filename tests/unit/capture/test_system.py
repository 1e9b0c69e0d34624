from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

psutil = pytest.importorskip("psutil")

from overt.capture.system import SystemSampler  # noqa: E402  - after the skip


def test_a_sample_has_mlflows_names_and_plausible_numbers() -> None:
    ballast = bytearray(50_000_000)
    sample = SystemSampler(os.getpid(), str(Path.cwd())).sample()
    assert set(sample) >= {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
        "system/disk_available_megabytes",
        "system/network_receive_megabytes",
        "system/process_memory_usage_megabytes",
    }
    assert sample["system/process_memory_usage_megabytes"] > len(ballast) / 1e6
    assert 0 < sample["system/system_memory_usage_percentage"] < 100
    assert sample["system/network_receive_megabytes"] >= 0
    assert all(isinstance(value, int | float) for value in sample.values())


def test_busy_time_is_that_between_two_looks() -> None:
    sampler = SystemSampler(os.getpid(), "/")
    until = os.times().user + 0.3
    while os.times().user < until:
        pass
    assert sampler.sample()["system/process_cpu_utilization_percentage"] > 20


def test_a_probe_that_fails_is_left_out_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = SystemSampler(os.getpid(), "/nowhere to be found")
    for _ in range(2):
        sample = sampler.sample()
        assert not any("disk" in name for name in sample)
        assert "system/cpu_utilization_percentage" in sample


def test_a_process_that_is_gone_leaves_the_machine() -> None:
    sample = SystemSampler(2**22 + 1, "/").sample()
    assert not any("process" in name for name in sample)
    assert "system/cpu_utilization_percentage" in sample


def test_each_gpu_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = types.ModuleType("pynvml")  # what nvidia-ml-py has, for a machine without a GPU
    driver.nvmlInit = lambda: None
    driver.nvmlDeviceGetCount = lambda: 2
    driver.nvmlDeviceGetHandleByIndex = lambda index: index
    driver.nvmlDeviceGetMemoryInfo = lambda device: types.SimpleNamespace(used=1e9 * (device + 1), total=4e9)
    driver.nvmlDeviceGetUtilizationRates = lambda device: types.SimpleNamespace(gpu=10 + device)
    driver.nvmlDeviceGetPowerUsage = lambda device: 300_000
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    sample = SystemSampler(os.getpid(), "/").sample()
    assert sample["system/gpu_0_utilization_percentage"] == 10
    assert sample["system/gpu_1_utilization_percentage"] == 11
    assert sample["system/gpu_1_memory_usage_megabytes"] == 2000
    assert sample["system/gpu_1_memory_usage_percentage"] == 50
    assert sample["system/gpu_1_power_usage_watts"] == 300
