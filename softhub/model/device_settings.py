"""Choices that change the time of a computation but not its result, by type of device.

The defaults were measured on CPUs. No other type of device has been measured yet, so that all use
them. `benchmarks/gpu_check.py` tries the choices on the device that it finds, and prints the entry
of `DEVICE_SETTINGS` that won.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DeviceSettings:
    """Choices for one type of device.

    Attributes:
        packs: Whether a training step runs prompt and texts in one packed row, rather than in two
            passes, where the base can do both.
        attends_in_groups: Whether the heads of packed texts that share keys attend together, so
            that no keys are copied. (Kernels that copy the mask lose what this saves.)
        logits_at_once: Logits of reference tokens that are computed at once; bounds memory.
        continuations_at_once: Continuations of texts by label words that are scored at once without
            gradient; bounds memory.
        least_shared: Minimum number of common tokens at the beginning of texts that are worth a
            pass of their own.
    """

    packs: bool = True
    attends_in_groups: bool = True
    logits_at_once: int = 2**25  # 128 MiB in float32
    continuations_at_once: int = 256
    least_shared: int = 32


DEVICE_SETTINGS: dict[str, DeviceSettings] = {"cpu": DeviceSettings()}
"""What won on each type of device that was measured."""


def settings_of(device: torch.device) -> DeviceSettings:
    """Return the choices for a device; those of CPUs if its type has not been measured."""
    return DEVICE_SETTINGS.get(device.type, DEVICE_SETTINGS["cpu"])
