"""Compare soft prompts with hard prompts, few-shot prompts, LoRA and fine-tuning on one task.

    softhub compare --config recipes/configs/compare_sentiment.yaml
    accelerate launch recipes/compare.py --config recipes/configs/compare_sentiment.yaml \\
        --methods "soft prompt" LoRA --seeds 0 1

Each row is saved to <output_dir>/rows.jsonl as soon as it is computed, and a stopped run resumes.
The folder also gets all figures (report.json) and a page of tables and plots (report.html).
"""

from softhub import PromptTrainingArguments, Task, compare, run_recipe
from softhub.experiments.comparison import ComparisonConfig


def main(config: ComparisonConfig, args: PromptTrainingArguments) -> None:
    task = Task.from_file(config.task)
    data = task.load_splits(config.limits)
    results = compare(config.load_base, task, data, args=args, **config.options)
    results.print()


if __name__ == "__main__":
    run_recipe(main, ComparisonConfig)
