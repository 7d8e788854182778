"""Check softhub on one GPU: exactness, speed, training. One command, six minutes, no network.

    python benchmarks/gpu_check.py          # on a GPU; or: make gpu-check
    python benchmarks/gpu_check.py --tiny   # a dry run with tiny models on the CPU

The results are in benchmarks/results/gpu_check-<device>.json, which is written after every part, so
that an interrupted run leaves what it found. A part that begins too late for the time that is left
is skipped, and one that takes longer is cut off. Then run `python docs/generate_hardware.py`, which
writes the documentation's table of what ran where. docs/hardware.md says what to carry to a machine
without a network.
"""

import os
import re
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

import torch
from gpu_parts.exactness import SETTINGS, exactness
from gpu_parts.machine import Machine
from gpu_parts.settings import settings
from gpu_parts.speed import generation, many_prompts, prefill, training_steps
from gpu_parts.training import checkpointing, compiled, demo, sharded, training
from record import RESULTS, command_line, write

MINUTES = 6
DRY_RUN = "gpu_check-dry-run"


class OutOfTime(Exception):
    """A part took longer than the time that was left."""


def exact(index):
    """Return the name, the seconds and the function of one part about exactness."""
    dtype, attention = SETTINGS[index]
    name = f"exactness, {str(dtype).removeprefix('torch.')}, {attention}"
    return name, 15, partial(exactness, dtype=dtype, attention=attention)


# The most important parts come first: the last ones are lost if time runs out. With each is how
# many seconds must be left for it to begin.
PARTS = (
    exact(0),
    exact(2),
    ("training step, 1B", 20, partial(training_steps, shape="1B")),
    ("prefill, 1B", 15, partial(prefill, shape="1B")),
    ("many prompts, 1B", 15, partial(many_prompts, shape="1B")),
    ("generate, 1B", 15, partial(generation, shape="1B")),
    ("device settings, 1B", 30, partial(settings, shape="1B")),
    ("checkpointing, 1B", 15, partial(checkpointing, shape="1B")),
    ("training, tiny", 20, training),
    ("FSDP 2, one process", 30, sharded),
    ("demo base", 60, demo),
    exact(4),
    exact(5),
    exact(7),
    ("training step, 8B", 40, partial(training_steps, shape="8B")),
    ("prefill, 8B", 20, partial(prefill, shape="8B")),
    ("many prompts, 8B", 20, partial(many_prompts, shape="8B")),
    ("generate, 8B", 20, partial(generation, shape="8B")),
    exact(1),
    exact(3),
    exact(6),
    ("compiled step, 1B", 45, partial(compiled, shape="1B")),
)


@contextmanager
def limited(seconds):
    """Raise `OutOfTime` after some seconds, where the system has such an alarm (not Windows)."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, stop)
    start, (outer, _) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # A timer that was running before, such as that of a test, continues.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(1.0, outer - time.monotonic() + start))


def run_part(machine, part, needed, left):
    """Return the record of one part: what it found, or why it found nothing."""
    start = time.monotonic()
    if left < needed:
        return {"skipped": f"{left:.0f} s were left, and it takes {needed} s"}
    try:
        with limited(left):
            record = part(machine)
    except OutOfTime:
        record = {"error": f"cut off after {left:.0f} s: time was out"}
    except Exception as error:  # the other parts can still run
        traceback.print_exc()
        record = {"error": f"{type(error).__name__}: {error}".strip()}
    machine.free()
    return {"seconds": round(time.monotonic() - start, 1), **record}


def verdict(record):
    """Return one word for a part's record."""
    if "skipped" in record or "error" in record:
        return "skipped" if "skipped" in record else "failed"
    return {True: "passed", False: "FAILED", None: "measured"}[record["passed"]]


def table(parts):
    """Yield the lines of the table: each part, its verdict, and what it found."""
    width = max(map(len, parts))
    for name, record in parts.items():
        found = record.get("summary") or record.get("skipped") or record["error"]
        yield f"{name:<{width}}  {verdict(record):<8}  {found.splitlines()[-1]}"


def find_machine(tiny):
    """Return the device to check: the CPU in a dry run, else the accelerator."""
    if tiny:
        return Machine(torch.device("cpu"), tiny=True), "CPU", DRY_RUN
    # Of several GPUs the first one: transformers would split batches among all of them.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if not torch.accelerator.is_available():
        sys.exit("Found no GPU; expected one. For a dry run on the CPU, pass --tiny.")
    device = torch.accelerator.current_accelerator()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Machine(device, tiny=False), name, f"gpu_check-{slug}"


def main(arguments=None):
    parser = command_line(__doc__)
    parser.add_argument("--tiny", action="store_true", help="dry run with tiny models on the CPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for all parts")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the JSON is written")
    options = parser.parse_args(arguments)
    machine, name, file = find_machine(options.tiny)
    start, parts = time.monotonic(), {}
    for part, needed, run in PARTS:
        left = 60 * options.minutes - (time.monotonic() - start)
        parts[part] = run_part(machine, run, 0 if options.tiny and left > 0 else needed, left)
        figures = {"dry_run": options.tiny, "date": date.today().isoformat(), "device": name}
        write(file, {**figures, "parts": parts}, options.folder)
    print("\n".join(table(parts)))
    if options.tiny:
        print("\nA dry run: it shows that the check works. The times of tiny models mean nothing.")
    entry = parts.get("device settings, 1B", {}).get("entry")
    if entry and not options.tiny:
        print(f"\nFor DEVICE_SETTINGS in softhub/model/device_settings.py:\n    {entry},")
    sys.exit(any(verdict(record) in ("failed", "FAILED") for record in parts.values()))


if __name__ == "__main__":
    main()
