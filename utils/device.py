"""Selection of the device."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import InputError


def select_device(text: str = "") -> torch.device:
    """Return the device for a --device value: "" (a GPU if available), "cpu", "0", "cuda:1", "mps". Raises InputError."""
    name = text.strip().lower()
    if not name:
        return _exact(torch.device("cuda:0" if torch.cuda.is_available() else "cpu"))
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device mps: PyTorch finds no Apple GPU here, expected cpu or a CUDA index")
        return torch.device("mps")
    if re.fullmatch(r"(cuda:)?\d+(,\d+)+", name):
        text = f"--device {text}: one process runs on one GPU"
        raise InputError(f"{text}; to train on several: torchrun --nproc_per_node {name.count(',') + 1} train.py ...")
    match = re.fullmatch(r"(?:cuda:?)?(\d*)", name)
    if not match:
        raise InputError(f"--device {text}: expected cpu, mps, cuda or the index of a CUDA device")
    index, count = int(match[1] or 0), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise InputError(f"--device {text}: PyTorch sees {count} CUDA devices here; use --device cpu")
    return _exact(torch.device(f"cuda:{index}"))


def _exact(device: torch.device) -> torch.device:
    """Disable cuDNN's rounding of float32 to TF32 (10 bits of mantissa); --half and --amp trade precision for speed."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit PyTorch on the CPU to a single thread in the block."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def stay_single(usual: int) -> None:
    """Limit PyTorch in the calling thread, one of a pool, to that thread, leaving the others to the network.

    Every thread has its own limit. Setting it also sets the limit of future threads; another thread resets that to `usual`.
    """
    torch.get_num_threads()  # the first call in a thread sets it to the usual one
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(usual,))
    other.start()
    other.join()
