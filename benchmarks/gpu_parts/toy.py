"""A task that a tiny model with random weights can learn, and `fit` with settings for it."""

import json
import tempfile

import torch
from peft import PromptTuningConfig

from gpu_parts.models import tiny_base
from softhub import Task, fit
from softhub.training import PromptTrainingArguments

GOOD, BAD = range(100, 105), range(200, 205)
LABELS = {"good": " w30", "bad": " w31 w32"}
TEMPLATE = "{text} w40"
SETTINGS = {
    "max_steps": 24,
    "learning_rate": 0.1,
    "eval_steps": 8,
    "save_steps": 8,
    "max_restarts": 0,
    "disable_tqdm": True,
}


def rows(count):
    """Return rows of which three of four are good: a prompt can learn that at least."""
    kinds = [(GOOD, "good") if index % 4 else (BAD, "bad") for index in range(count)]
    return [
        {
            "text": " ".join(f"w{words[(index + k) % 5]}" for k in range(1 + index % 3)),
            "label": label,
        }
        for index, (words, label) in enumerate(kinds)
    ]


def train(device, dtype=torch.float32, *, kind=PromptTuningConfig, loaded_on=None, **options):
    """Train a prompt, or a prefix, on a tiny Llama.

    Args:
        device: Where to train.
        dtype: Dtype of the base.
        kind: PEFT's configuration of what is trained.
        loaded_on: Where the base is before training moves it; by default where it is trained.
        **options: Training arguments.

    Returns:
        The base, and the `FitResult`.
    """
    base = tiny_base("llama", loaded_on or device, dtype)
    task = Task(name="toy", template=TEMPLATE, labels=LABELS)
    examples = rows(80)
    with tempfile.TemporaryDirectory() as folder:
        args = PromptTrainingArguments(
            output_dir=folder, use_cpu=torch.device(device).type == "cpu", **{**SETTINGS, **options}
        )
        config = kind(task_type=base.task_type, num_virtual_tokens=6)
        data = {"train": examples[:64], "dev": examples[64:]}
        return base, fit(base, task, config, data, args=args, init="labels")


TASK_FILE = """\
name: toy
kind: classification
dataset:
  data_files: {{train: ./rows.jsonl, dev: ./rows.jsonl, test: ./rows.jsonl}}
template: "{template}"
label_column: label
verbalizer: {labels}
metrics: [accuracy]
"""


def write_files(folder):
    """Write the toy task, its rows and its base model; return the flags of a recipe for them."""
    base = tiny_base("llama", "cpu")
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    lines = "".join(json.dumps(row) + "\n" for row in rows(32))
    (folder / "rows.jsonl").write_text(lines)
    text = TASK_FILE.format(template=TEMPLATE, labels=json.dumps(LABELS))
    (folder / "task.yaml").write_text(text)
    return {
        "task": folder / "task.yaml",
        "base_model": folder / "base",
        "num_virtual_tokens": 4,
        "max_steps": 2,
        "eval_steps": 1,
        "save_steps": 1,
        "max_restarts": 0,
        "use_cpu": "true",
    }
