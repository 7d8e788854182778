"""Train the toy task and write its losses and vectors; run alone or under torchrun."""

import json
import sys
from pathlib import Path

from peft import PromptTuningConfig

from softhub.base import load_base
from softhub.tasks import Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit
from tests.unit.training.conftest import example


def main(base_folder, out, per_device, reparameterization):
    base = load_base(base_folder)
    task = Task(
        name="toy",
        kind="classification",
        template=Template("Review: {text}\nSentiment:"),
        verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": [" negative", " not"]}),
        label_column="label",
        class_weights=None if reparameterization == "none" else "balanced",
    )
    examples = [example(index) for index in range(40)]
    args = PromptTrainingArguments(
        output_dir=f"{out}-run",
        max_steps=6,
        learning_rate=0.1 if reparameterization == "none" else 0.01,
        reparameterization=reparameterization,
        per_device_train_batch_size=int(per_device),
        eval_steps=3,
        save_steps=3,
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=6)
    result = fit(
        base, task, config, train=examples[:32], dev=examples[32:], args=args, init="labels"
    )
    if args.process_index == 0:
        record = {
            "losses": [logs["loss"] for logs in result.history if "loss" in logs],
            "dev": [logs["eval_loss"] for logs in result.history if "eval_loss" in logs],
            "vectors": result.prompt.vectors.tolist(),
            "processes": args.world_size,
        }
        Path(out).write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
