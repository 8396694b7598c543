"""Devices by name, as a command's `--device` gives them."""

import torch

from ..errors import UsageError

__all__ = ["named_device"]


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
