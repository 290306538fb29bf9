"""Energy of a forward pass, from the hardware's counters: NVML for NVIDIA GPUs, RAPL for CPUs."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")
SAMPLE_S = 0.1  # the interval at which VoVNet's authors sample nvidia-smi
IDLE_S, BUSY_S = 1.0, 3.0


@dataclass(frozen=True)
class EnergyCounter:
    """An energy counter: its name, and a function that returns the joules used since a fixed point in time."""

    name: str
    joules: Callable[[], float]


@dataclass(frozen=True)
class EnergyUse:
    """Mean idle and busy power of the processor, joules per pass in addition to idle power, and the number of passes."""

    idle_watts: float
    busy_watts: float
    joules: float
    passes: int


def measure_energy(
    counter: EnergyCounter,
    run: Callable[[], object],
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyUse:
    """Measure energy as in VoVNet, power divided by passes per second.

    Idles for IDLE_S, then calls `run`, which makes one pass, for BUSY_S.
    """
    idle_watts, _, _ = _mean_power(counter, lambda: sleep(SAMPLE_S), IDLE_S, clock)
    busy_watts, passes, seconds = _mean_power(counter, run, BUSY_S, clock)
    return EnergyUse(idle_watts, busy_watts, max(0.0, busy_watts - idle_watts) * seconds / passes, passes)


def _mean_power(
    counter: EnergyCounter, run: Callable[[], object], at_least_s: float, clock: Callable[[], float]
) -> tuple[float, int, float]:
    """Mean watts, number of calls of `run`, and the seconds that they took."""
    start, before, passes, seconds = clock(), counter.joules(), 0, 0.0
    while seconds < at_least_s:
        run()
        passes += 1
        seconds = clock() - start
    return (counter.joules() - before) / seconds, passes, seconds


def sampled_counter(name: str, watts: Callable[[], float]) -> EnergyCounter:
    """A counter for a processor that reports only its power, which a thread samples every SAMPLE_S."""
    used, last = 0.0, (time.perf_counter(), watts())
    lock = threading.Lock()

    def joules() -> float:
        nonlocal used, last
        with lock:
            now, power = time.perf_counter(), watts()
            used += (last[1] + power) / 2 * (now - last[0])
            last = now, power
            return used

    def sample() -> None:
        while True:
            time.sleep(SAMPLE_S)
            joules()

    threading.Thread(target=sample, daemon=True, name="power").start()
    return EnergyCounter(name, joules)


def energy_counter(device: torch.device, rapl: Path = RAPL) -> EnergyCounter | None:
    """The energy counter for `device`; None if there is none that can be read."""
    if device.type == "cuda":
        return _nvml(device.index or 0)
    return _rapl(rapl) if device.type == "cpu" else None


def _nvml(index: int) -> EnergyCounter | None:
    """Energy of a GPU since the driver was loaded (nvmlDeviceGetTotalEnergyConsumption); before Volta, from power samples.

    The GPU is looked up by PCI bus, because CUDA and NVML may number GPUs differently.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    properties: Any = torch.cuda.get_device_properties(index)
    bus = f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(handle)):
        return None
    if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)):
        milliwatts = ctypes.c_uint()
        if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)):
            return None

        def watts() -> float:
            nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts))
            return milliwatts.value / 1e3

        return sampled_counter("NVML", watts)

    def joules() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used))
        return used.value / 1e3

    return EnergyCounter("NVML", joules)


def _rapl(folder: Path) -> EnergyCounter | None:
    """Energy of all CPU packages (intel-rapl:N, also on AMD); often only root can read the files."""
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
