"""Is the soft prompt better? Every way of doing one task on one base, on the same data.

    accelerate launch recipes/compare.py --config recipes/configs/compare_sentiment.yaml
    accelerate launch recipes/compare.py --config recipes/configs/compare_sentiment.yaml \
        --methods "soft prompt" LoRA --seeds 0 1

Rows are kept in <output_dir>/rows.jsonl as they come; a run that was stopped goes on where it was.
The table is printed and written to <output_dir>/comparison.md, with all figures in report.json,
plots in report.html and a picture of the whole in overview.svg and overview.png.
"""

from dataclasses import dataclass, field
from functools import partial

from softhub import Task, load_base
from softhub.cli import run_recipe
from softhub.config import parse_config
from softhub.experiments.comparison import METHODS, Contest, compare
from softhub.experiments.comparison.results import print_results, write_results
from softhub.training import PromptTrainingArguments


@dataclass
class CompareConfig:
    task: str = field(metadata={"help": "Task file."})
    base_model: str = field(metadata={"help": "Hub id, local folder or .gguf file of the base."})
    base_name: str | None = field(default=None, metadata={"help": "Its canonical name for cards."})
    dtype: str | None = field(default=None, metadata={"help": "float32, bfloat16, float16, auto."})
    methods: list[str] = field(
        default_factory=lambda: list(METHODS), metadata={"help": "Rows to run; the others are not."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds."})
    virtual_tokens: list[int] = field(
        default_factory=lambda: [1, 5, 20, 50, 100], metadata={"help": "Lengths of soft prompts."}
    )
    ensemble_of: int = field(default=20, metadata={"help": "Length of the ensemble's prompts."})
    init: str | None = field(default="labels", metadata={"help": "auto, task, labels, …"})
    shots: list[int] = field(default_factory=lambda: [4, 8], metadata={"help": "Solved examples."})
    run_generated_code: bool = field(default=False, metadata={"help": "See docs/sandbox.md."})
    lora_rate: float = field(default=5e-4, metadata={"help": "Learning rate of LoRA."})
    lora_rank: int = field(default=8, metadata={"help": "Rank of LoRA's matrices."})
    fine_tuning_rate: float = field(default=2e-5, metadata={"help": "That of fine-tuning."})
    max_train_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})
    max_dev_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})
    max_test_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})


def main() -> None:
    config, args = parse_config(CompareConfig, PromptTrainingArguments)
    task = Task.from_file(config.task)
    contest = Contest(
        task=task,
        train=task.load("train", limit=config.max_train_examples),
        dev=task.load("dev", limit=config.max_dev_examples),
        test=task.load("test", limit=config.max_test_examples),
        load=partial(load_base, config.base_model, name=config.base_name, dtype=config.dtype),
        args=args,
        seeds=config.seeds,
        virtual_tokens=config.virtual_tokens,
        ensemble_of=config.ensemble_of,
        init=config.init,
        shots=config.shots,
        run_code=config.run_generated_code,
        lora_rate=config.lora_rate,
        lora_rank=config.lora_rank,
        fine_tuning_rate=config.fine_tuning_rate,
    )
    compare(contest, config.methods)
    print_results(write_results(args.output_dir))


if __name__ == "__main__":
    run_recipe(main)
