"""CPU time and memory of a training step on texts, with full logits and with logits in pieces.

    python benchmarks/text_loss.py

A step is forward and backward of the loss of reference texts after one prompt, on the demo base
model: with the `[B, N, V]` logits of the model's own head, and with `softhub.model.projection`.
Each side runs in its own process, in turn, on one thread. Memory is the increase of the process's
peak memory after the base model is loaded.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from record import DEMO_BASE, command_line, write

from softhub import load_base
from softhub.model.assembly import pad_rows
from softhub.model.kv_cache import encode_prefix
from softhub.model.scoring import target_logprobs

BATCH, TOKENS, TEXT, STEPS, ROUNDS = 8, 20, 48, 3, 2
TARGETS = (16, 64, 128)
SIDES = ("whole logits", "in pieces")


def rows_of(length, seed):
    """Return rows of random tokens."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(100, 40_000, (BATCH, length), generator=draw)
    return [tuple(row) for row in ids.tolist()]


def peak():
    """Return the peak memory of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(side, target):
    """Measure CPU seconds per step, memory and loss of one side, in this process."""
    torch.set_num_threads(1)
    base = load_base(DEMO_BASE)
    vars(base)["has_plain_head"] = side == "in pieces"
    texts, targets = pad_rows(rows_of(TEXT, 0)), pad_rows(rows_of(target, 1), side="right")
    vectors = base.embed(torch.arange(100, 100 + TOKENS)).requires_grad_()
    before, seconds = peak(), []
    for _ in range(STEPS):
        start = time.process_time()
        loss = -target_logprobs(base, [encode_prefix(base, vectors)] * BATCH, texts, targets).mean()
        (gradient,) = torch.autograd.grad(loss, vectors)
        seconds.append(time.process_time() - start)
    return {
        "cpu_seconds": seconds[1:],
        "memory": peak() - before,
        "loss": loss.item(),
        "gradient_norm": gradient.norm().item(),
    }


def in_own_process(side, target):
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, side, str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = command_line(__doc__)
    parser.add_argument("case", nargs="*", help="one side and its target tokens, in this process")
    if case := parser.parse_args().case:
        print(json.dumps(measure(case[0], int(case[1]))))
        return
    cases = {}
    for target in TARGETS:
        found = {side: [] for side in SIDES}
        for _ in range(ROUNDS):
            for side in SIDES:
                found[side].append(in_own_process(side, target))
        medians = {
            side: {
                "cpu_seconds": statistics.median(s for one in runs for s in one["cpu_seconds"]),
                "memory": statistics.median(one["memory"] for one in runs),
            }
            for side, runs in found.items()
        }
        whole, pieces = (medians[side] for side in SIDES)
        ratios = {name: pieces[name] / whole[name] for name in whole}
        cases[str(target)] = {"medians": medians, "pieces_over_whole": ratios, "runs": found}
        print(f"{target} tokens per target: {ratios}", flush=True)
    sizes = {"batch": BATCH, "virtual_tokens": TOKENS, "text_tokens": TEXT}
    write("text_loss", {**sizes, "rounds": ROUNDS, "target_tokens": cases})


if __name__ == "__main__":
    main()
