"""The most memory that training took."""

from __future__ import annotations

import sys

import torch


def peak_memory() -> int:
    """Largest resident memory of this process in bytes (CPU), or of the GPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
