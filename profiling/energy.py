"""Energy from the processor's own counter: NVML for NVIDIA GPUs, RAPL for CPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of energy used: its name, and joules since a fixed moment in the past."""

    name: str
    joules: Callable[[], float]


def energy_counter(device: torch.device, rapl: Path = RAPL) -> EnergyCounter | None:
    """The counter of the processor behind `device`, or None if there is none that may be read."""
    if device.type == "cuda":
        return _nvml(device.index or 0)
    return _rapl(rapl) if device.type == "cpu" else None


def _nvml(index: int) -> EnergyCounter | None:
    """Total energy of a GPU since the driver was loaded (nvmlDeviceGetTotalEnergyConsumption, Volta and later).

    The GPU is looked up by its bus, because CUDA and NVML may count GPUs in another order.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    properties: Any = torch.cuda.get_device_properties(index)
    bus = f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
    failed = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(handle))
        or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used))
    )
    if failed:
        return None

    def joules() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used))
        return used.value / 1e3

    return EnergyCounter("NVML", joules)


def _rapl(folder: Path) -> EnergyCounter | None:
    """Energy of all CPU packages (intel-rapl:N, also used for AMD); the files are often readable by root only."""
    files = sorted(path / "energy_uj" for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1)
    try:
        ranges = [int((path.parent / "max_energy_range_uj").read_text()) for path in files]
        last = [int(path.read_text()) for path in files]
    except OSError:
        return None
    if not files:
        return None
    wraps = [0] * len(files)

    def joules() -> float:
        for number, path in enumerate(files):
            value = int(path.read_text())
            wraps[number] += value < last[number]
            last[number] = value
        return sum(value + wrap * span for value, wrap, span in zip(last, wraps, ranges, strict=True)) / 1e6

    return EnergyCounter("RAPL", joules)
