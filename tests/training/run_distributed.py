"""Train the toy task and write its losses, vectors and answers; run alone or under torchrun.

With ACCELERATE_USE_FSDP the base is sharded: Accelerate does that for GPUs alone, so these CPUs are
presented to it as GPUs.
"""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import PrefixTuningConfig, PromptTuningConfig

from softhub import PromptModel
from softhub.evaluation.evaluate import predict_examples
from softhub.experiments.console import exit_code_of, silence_stdout
from softhub.model.loading import load_base
from softhub.tasks import Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit
from tests.training.conftest import example


def call_cpus_gpus():
    plain = PartialState.__init__

    def state(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = state


def main(base_folder, out, per_device, class_weights, optim="adamw_torch", method="prompt"):
    if "ACCELERATE_USE_FSDP" in os.environ:
        call_cpus_gpus()
    base = load_base(base_folder)
    task = Task(
        name="toy",
        kind="classification",
        template=Template("Review: {text}\nSentiment:"),
        verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": [" negative", " not"]}),
        label_column="label",
        class_weights=None if class_weights == "none" else class_weights,
    )
    examples = [example(index) for index in range(40)]
    fixed = method == "prompt"
    steps = {"max_steps": 6} if fixed else {"max_steps": "auto", "auto_max_steps": 6}
    args = PromptTrainingArguments(
        output_dir=f"{out}-run",
        **steps,
        learning_rate=0.1,
        optim=optim,
        per_device_train_batch_size=int(per_device),
        per_device_eval_batch_size=3,  # of eight rows: two processes have to fill up
        eval_steps=3,
        save_steps=3,
        logging_steps=1,
        max_restarts=0,  # under FSDP there are none
        use_cpu=True,
        disable_tqdm=True,
    )
    kind = PrefixTuningConfig if method == "prefix" else PromptTuningConfig
    config = kind(task_type=base.task_type, num_virtual_tokens=6)
    data = {"train": examples[:32], "dev": examples[32:]}
    resume = "RESUME" in os.environ
    result = fit(base, task, config, data, args=args, init="labels", resume=resume)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="toy")
    predictions = predict_examples(model, task, examples[32:], prompt="toy", batch_size=8)
    if args.process_index == 0:
        record = {
            "losses": [logs["loss"] for logs in result.history if "loss" in logs],
            "dev": [logs["eval_loss"] for logs in result.history if "eval_loss" in logs],
            "vectors": result.prompt.vectors.tolist(),
            "probabilities": [p.probabilities["good"] for p in predictions],
            "processes": args.world_size,
            "ended": result.ended,
            "sharded": base.is_sharded,
        }
        Path(out).write_text(json.dumps(record))
    print("done")


if __name__ == "__main__":
    if os.environ.get("RANK", "0") != "0":
        silence_stdout()
    sys.exit(exit_code_of(lambda: main(*sys.argv[1:])))
