"""Does training give the CPU's result: in half precision, checkpointed, sharded, compiled?"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from peft import PrefixTuningConfig, PromptTuningConfig

from gpu_parts.machine import ratio, shown
from gpu_parts.settings import using
from gpu_parts.speed import SHAPES, own_step
from gpu_parts.toy import train, write_files
from softhub.model.device_settings import settings_of

ROOT = Path(__file__).parents[2]
KINDS = (PromptTuningConfig, PrefixTuningConfig)
DEV_LOSS_TOLERANCE = 0.05
GRADIENT_TOLERANCE = 0.02
"""Largest difference of two gradients in bfloat16, relative to the largest number."""

DEMO_FILES = ROOT / "recipes/data/files"
DEMO_ACCURACY = (0.885, 0.946)
"""The 95 % interval of `make demo` on a CPU, which the README shows."""


def training(machine):
    """Train the toy task in several precisions and a prefix, and compare with the CPU."""
    references = {kind: train("cpu", kind=kind)[1].best_score for kind in KINDS}
    ways = {
        "float32": {},
        "bfloat16 base": {"dtype": torch.bfloat16},
        "bf16 mixed precision": {"bf16": True},
        "activation checkpointing": {"activation_checkpointing": True},
    }
    if machine.device.type != "cpu":  # Accelerate scales losses for fp16 on GPUs alone
        ways |= {"float16 base": {"dtype": torch.float16}, "fp16 mixed precision": {"fp16": True}}
    # A prefix has the device of the base, which Trainer moves after it is loaded on the CPU.
    ways["prefix"] = {"kind": PrefixTuningConfig, "loaded_on": "cpu"}
    losses, expected = {}, {}
    for name, options in ways.items():
        with same_environment():  # transformers leaves the mixed precision in it
            losses[name] = train(machine.device, **options)[1].best_score
        expected[name] = references[options.get("kind", PromptTuningConfig)]
    return {
        "cpu_dev_losses": expected,
        "dev_losses": losses,
        "passed": all(abs(losses[each] - expected[each]) <= DEV_LOSS_TOLERANCE for each in ways),
        "summary": "dev loss (that of the CPU in float32) "
        + ", ".join(f"{name} {losses[name]:.4f} ({expected[name]:.4f})" for name in ways),
    }


@contextmanager
def same_environment():
    """Restore the environment variables afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def checkpointing(machine, shape):
    """Compare time, memory and gradient of a long step with and without checkpointing."""
    base, case = machine.llama(shape), machine.sized(SHAPES[-1])
    step, module, plain = first_step(machine, base, case)
    found = machine.compare({"plain": step}, rounds=2)
    module.activation_checkpointing_enable()
    step, _, again = first_step(machine, base, case)
    found |= machine.compare({"checkpointed": step}, rounds=2)
    machine.forget()  # its layers checkpoint from now on
    deviation = float((plain - again).abs().max() / plain.abs().max())
    memory = [each.get("peak_memory") for each in found.values()]
    return {
        "sides": found,
        "deviation": deviation,
        "passed": deviation <= GRADIENT_TOLERANCE,
        "summary": f"{shown(ratio(found, 'checkpointed', 'plain'))} of the time, "
        + (f"{memory[1] / memory[0]:.2f} of the peak memory, " if all(memory) else "")
        + f"gradient within {deviation:.1e}",
    }


def first_step(machine, base, case):
    """Return a function for training steps, its module, and the gradient of the first step."""
    torch.manual_seed(0)  # the same texts each time
    step, module = own_step(machine, base, *case)
    step()
    return step, module, module.prompt.grad.clone()


def compiled(machine, shape):
    """Compare a compiled step with a packed one, and count the steps that pay for compilation."""
    base, case = machine.llama(shape), machine.sized(SHAPES[0])
    packed, _ = own_step(machine, base, *case)
    step, module = own_step(machine, base, *case)
    backend = "eager" if machine.tiny else "inductor"
    forward = torch.compile(module, backend=backend)

    def run():  # packing replaces the layers' attention, which breaks a compiler's graph
        with using(machine, replace(settings_of(machine.device), packs=False)):
            step(forward)

    first = machine.seconds(run)
    found = machine.compare({"packed": packed, "compiled": run})
    times = ratio(found, "packed", "compiled")
    gained = found["packed"]["seconds"] - found["compiled"]["seconds"]
    return {
        "backend": backend,
        "sides": found,
        "first_step_seconds": first,
        "pays_after_steps": first / gained if gained > 0 else None,
        "passed": None,
        "summary": f"{times:.2f} times as fast as a packed step, after {first:.0f} s",
    }


def sharded(machine):
    """Train the toy task with FSDP 2 in a process of its own, and compare with this process."""
    _, reference = train(machine.device)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        worker = ["-m", "gpu_parts.fsdp_worker", str(machine.device), str(out)]
        run_python(worker, **alone, **address)
        found = json.loads(out.read_text())
    difference = (torch.tensor(found["vectors"]) - reference.prompt.vectors).abs().max()
    deviation = float(difference / reference.prompt.vectors.abs().max())
    apart = abs(found["dev_loss"] - reference.best_score)
    return {
        "sharded": found["sharded"],
        "dev_losses": [reference.best_score, found["dev_loss"]],
        "deviation_of_vectors": deviation,
        "passed": found["sharded"] and apart <= DEV_LOSS_TOLERANCE,
        "summary": f"dev loss {found['dev_loss']:.4f} (unsharded {reference.best_score:.4f}), "
        f"vectors within {deviation:.1e}",
    }


def run_python(arguments, **environment):
    """Run Python on a module or script of this repository, without a network.

    Raises:
        RuntimeError: It failed; with the end of what it wrote to stderr.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in own.items()}},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[:2]} exited with {done.returncode}: {done.stderr[-2000:]}")


def demo(machine):
    """Run the recipe of the demo, and compare its accuracy with the CPU's interval."""
    with tempfile.TemporaryDirectory() as folder:
        if machine.tiny:
            flags = write_files(Path(folder))
        elif not list(DEMO_FILES.glob("*.gguf")) or not (DEMO_FILES / "amazon_reviews").is_dir():
            return {"skipped": f"the demo's base model or its reviews are not in {DEMO_FILES}"}
        else:
            flags = {
                "config": ROOT / "recipes/configs/sentiment.yaml",
                "max_steps": 60,
                "max_test_examples": 300,
            }
        flags["output_dir"] = Path(folder) / "run"
        recipe = ROOT / "recipes/classification.py"
        run_python([recipe, *(f"--{name}={value}" for name, value in flags.items())])
        report = json.loads((flags["output_dir"] / "report.json").read_text())
    row = report["rows"][-1]
    accuracy, (low, high) = row["metrics"]["accuracy"], DEMO_ACCURACY
    within = row["name"] == "soft prompt" if machine.tiny else low <= accuracy["value"] <= high
    return {
        "row": row,
        "interval_of_the_cpu": DEMO_ACCURACY,
        "passed": within,
        "summary": f"{row['name']}: accuracy {accuracy['value']:.3f} on {row['examples']} texts, "
        f"trained in {row['train_seconds']:.0f} s",
    }
