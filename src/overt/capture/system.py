"""How busy a machine and one process on it are: one sample is a mapping of MLflow's own names to numbers.

Each probe fails alone and for good: what a container hides, or a machine does not have, is left out of every sample.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from overt.optional import require

Probe = Callable[[], Mapping[str, float]]

_MEGABYTE = 1e6


class SystemSampler:
    """Samples what the process ``pid`` and its machine use. Utilization is that since the sample before.

    Parameters
    ----------
    pid : int
        The training process.
    directory : str
        A path on the disk that is looked at.
    """

    def __init__(self, pid: int, directory: str) -> None:
        self._pid = pid
        self._directory = directory
        self._probes: list[Probe] = []
        for make in (self._cpu, self._memory, self._process, self._disk, self._network, self._gpus):
            with suppress(Exception):  # no GPU, no psutil, a container that hides its host: there is no such probe then
                self._probes.append(make())

    def sample(self) -> dict[str, float]:
        """Name, such as ``system/cpu_utilization_percentage``, to value."""
        found: dict[str, float] = {}
        for probe in list(self._probes):
            try:
                found |= probe()
            except Exception:  # noqa: BLE001 - drivers and containers fail in their own ways
                self._probes.remove(probe)
        return {f"system/{name}": value for name, value in found.items()}

    def _cpu(self) -> Probe:
        psutil = _psutil()
        psutil.cpu_percent()  # the first call has nothing to compare with
        return lambda: {"cpu_utilization_percentage": psutil.cpu_percent()}

    def _memory(self) -> Probe:
        psutil = _psutil()

        def memory() -> Mapping[str, float]:
            found = psutil.virtual_memory()
            return {
                "system_memory_usage_megabytes": found.used / _MEGABYTE,
                "system_memory_usage_percentage": 100 * found.used / found.total,
            }

        return memory

    def _process(self) -> Probe:
        process = _psutil().Process(self._pid)
        process.cpu_percent()

        def usage() -> Mapping[str, float]:
            with process.oneshot():
                return {
                    "process_cpu_utilization_percentage": process.cpu_percent(),
                    "process_memory_usage_megabytes": process.memory_info().rss / _MEGABYTE,
                }

        return usage

    def _disk(self) -> Probe:
        psutil = _psutil()

        def disk() -> Mapping[str, float]:
            found = psutil.disk_usage(self._directory)
            return {
                "disk_usage_percentage": found.percent,
                "disk_usage_megabytes": found.used / _MEGABYTE,
                "disk_available_megabytes": found.free / _MEGABYTE,
            }

        return disk

    def _network(self) -> Probe:
        psutil = _psutil()
        before = psutil.net_io_counters()

        def network() -> Mapping[str, float]:
            now = psutil.net_io_counters()
            return {
                "network_receive_megabytes": (now.bytes_recv - before.bytes_recv) / _MEGABYTE,
                "network_transmit_megabytes": (now.bytes_sent - before.bytes_sent) / _MEGABYTE,
            }

        return network

    def _gpus(self) -> Probe:
        pynvml = import_module("pynvml")  # of nvidia-ml-py; where it or the driver is absent, there is no such probe
        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]

        def gpus() -> Mapping[str, float]:
            found: dict[str, float] = {}
            for index, device in enumerate(devices):
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                found |= {
                    f"gpu_{index}_utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(device).gpu,
                    f"gpu_{index}_memory_usage_megabytes": memory.used / _MEGABYTE,
                    f"gpu_{index}_memory_usage_percentage": 100 * memory.used / memory.total,
                    f"gpu_{index}_power_usage_watts": pynvml.nvmlDeviceGetPowerUsage(device) / 1000,
                }
            return found

        return gpus


def _psutil() -> Any:
    return sys.modules.get("psutil") or require("psutil", extra="mlflow")
