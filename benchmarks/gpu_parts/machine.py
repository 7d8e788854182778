"""The device that is checked: its clock, its memory, and the large models that are on it."""

import gc
import statistics
import time
from dataclasses import dataclass, field

import torch

from gpu_parts.models import llama_base


@dataclass
class Machine:
    """A device.

    Attributes:
        device: The device.
        tiny: Whether this is a dry run with tiny models.
    """

    device: torch.device
    tiny: bool
    _bases: dict = field(default_factory=dict)

    @property
    def dtype(self):
        """The dtype of large models."""
        return torch.float32 if self.tiny else torch.bfloat16

    def llama(self, shape):
        """Return a Llama of a shape ("1B", "8B"), or a tiny one; only the last one is stored."""
        name = "tiny" if self.tiny else shape
        if name not in self._bases:
            self.forget()
            self._bases[name] = llama_base(name, self.device, self.dtype)
        return self._bases[name]

    def sized(self, numbers):
        """Return sizes such as P, B and T; a quarter of each in a dry run."""
        return tuple(number // 4 or 1 for number in numbers) if self.tiny else numbers

    def forget(self):
        """Free the large model."""
        self._bases.clear()
        self.free()

    def wait(self):
        """Wait until the device has done its work."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def free(self):
        """Free the memory of objects that are not used any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_memory(self, run):
        """Return the most bytes of a GPU that were in use while something ran; None on CPUs."""
        if self.device.type != "cuda":
            run()
            return None
        self.free()
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device)

    def try_out(self, run):
        """Warm up; return the peak memory, or an error where memory is not sufficient."""
        try:
            memory = self.peak_memory(run)
            if not self.tiny:
                run()
        except torch.OutOfMemoryError:
            return {"error": "out of memory"}
        return {"peak_memory": memory, "rounds": []}

    def reached(self, *bars):
        """Return whether all bars are reached.

        None in a dry run, whose times mean nothing, and where a figure could not be measured.
        """
        return None if self.tiny or None in bars else all(bars)

    def seconds(self, run):
        """Return the seconds that one call takes."""
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def compare(self, sides, rounds=None):
        """Time several functions in turn.

        Args:
            sides: Functions without arguments, by name.
            rounds: How often each is timed after it was run twice (once in a dry run); 5, or 1.

        Returns:
            For each side its median of `seconds` and its `peak_memory` in bytes, or `error` where
            memory was not sufficient.
        """
        rounds = rounds or (1 if self.tiny else 5)
        found, able = {}, {}
        for name, run in sides.items():
            found[name] = self.try_out(run)
            if "error" in found[name]:
                self.free()
            else:
                able[name] = run
        for _ in range(rounds):
            for name, run in able.items():
                found[name]["rounds"].append(self.seconds(run))
        for name in able:
            found[name]["seconds"] = statistics.median(found[name]["rounds"])
        return found


def ratio(found, one, other):
    """Return how many times as long as `other` a side took; None if one of them did not run."""
    if "seconds" not in found.get(one, {}) or "seconds" not in found.get(other, {}):
        return None
    return found[one]["seconds"] / found[other]["seconds"]


def shown(number, unit=""):
    """Return a figure of a summary."""
    return "out of memory" if number is None else f"{number:.2f}{unit}"


def at_least(bound, number):
    """Return whether a figure reaches a bar; None if it was not measured."""
    return None if number is None else number >= bound
