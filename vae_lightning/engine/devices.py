"""Devices by name, as a command's `--device` gives them, and what the CPU is good at."""

import time

import torch

from ..errors import UsageError

__all__ = ["bfloat16_speed", "named_device"]


def named_device(name: str) -> torch.device:
    """Returns the device of this name, which can compute.

    Raises:
        UsageError: if there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: must be one of cpu, cuda, cuda:1 …, mps") from error
    if device.type == "cpu":
        return device
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None or found.type != device.type:
        raise UsageError(f"--device {name}: there is no {device.type.upper()} device here; use --device cpu")
    count = torch.accelerator.device_count()
    if (device.index or 0) >= count:
        raise UsageError(
            f"--device {name}: the devices here are {', '.join(f'{found.type}:{i}' for i in range(count))}"
        )
    return device


def bfloat16_speed() -> float:
    """Returns how many times as fast the CPU multiplies matrices in bfloat16 as in 32 bits.

    It is measured, in some milliseconds: CPUs with instructions for it have from 0.6 to more than 2, and those without
    them much less.
    """
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(512, 512, dtype=dtype)
    found = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        found.append(time.perf_counter() - start)
    return min(found)
