"""How much of a long prompt's score does a short soft prompt that was distilled from it retain?

    python benchmarks/distillation.py            # resumable: finished runs are not repeated
    python benchmarks/distillation.py --summary  # only summarize the finished runs

The teachers are an 8-shot prompt for sentiment, and for organ systems the longest instruction of
the task file, both with the label bias removed. Each is distilled into 20 virtual tokens before the
task's own short template, on the demo base model, without labels except those of the shots.
Teacher, student and short template are evaluated on the same test texts; the intervals of the share
and of the difference are paired over them.
"""

import sys
import tempfile
import time
from dataclasses import replace

from peft import PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    command_line,
    dev_losses,
    keep_row,
    read_rows,
    write,
)

from softhub import PromptModel, Task, load_base
from softhub.evaluation.evaluate import score_predictions
from softhub.experiments.distillation import (
    BiasCorrectedTeacher,
    FewShotTeacher,
    ModelTeacher,
    distill,
    evaluate_student,
)
from softhub.tasks import Splits
from softhub.tasks.sampling import choose_shots
from softhub.training import PromptTrainingArguments

TOKENS, SHOTS = 20, 8
RUNS = (
    ("sentiment", "8 shots, calibrated"),
    ("medical_organ", "instruction, calibrated"),
)
ROWS = RESULTS / "distillation.jsonl"


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--dev", type=int, default=64)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--init", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


def teacher_of(name, model, task, train, seed):
    """Return a teacher by its name in `RUNS`; shots are from all of train, as in `compare`."""
    longest = max(task.hard_templates, key=lambda template: len(template.text))
    if name.startswith("8 shots"):
        shots = choose_shots(task, task.load("train"), SHOTS, seed)
        teacher = FewShotTeacher(model, task, task.template, shots)
    else:
        teacher = ModelTeacher(model, replace(task, template=longest))
    return BiasCorrectedTeacher(teacher, train) if name.endswith("calibrated") else teacher


def short_calibrated(model, task, train, test):
    """Evaluate the short template with its label bias removed: a baseline without a student."""
    teacher = BiasCorrectedTeacher(ModelTeacher(model, task), train)
    metrics = score_predictions(task, test, teacher.answer(task, test), 0.0).metrics
    return {name: interval._asdict() for name, interval in metrics.items()}


def run(options, model, task, name, seed):
    sizes = {"train": options.train, "dev": options.dev, "test": options.test}
    train, dev, test = (task.load(split, limit=limit) for split, limit in sizes.items())
    start = time.perf_counter()
    teacher = teacher_of(name, model, task, train, seed)
    teacher.classify([*train, *dev])
    asking = time.perf_counter() - start
    base = model.base
    config = PromptTuningConfig(
        task_type=base.task_type,
        num_virtual_tokens=TOKENS,
        prompt_tuning_init_text=teacher.instruction,
    )
    with tempfile.TemporaryDirectory() as folder:
        args = PromptTrainingArguments(output_dir=folder, max_steps=options.steps, seed=seed)
        result = distill(
            base,
            task,
            config,
            Splits(train, dev, []),
            teacher=teacher,
            args=args,
            init=options.init,
        )
    kept = evaluate_student(model, task, result.prompt, teacher, test)
    return {
        "task": task.name,
        "teacher": name,
        "seed": seed,
        "steps": options.steps,
        "texts": {split: len(part) for split, part in zip(sizes, (train, dev, test), strict=True)},
        "start": result.init,
        "learning_rate": result.prompt.manifest.provenance["training"]["learning_rate"],
        "divergence on dev": dev_losses(result),
        "best_step": result.best_step,
        "restarts": result.restarts,
        "seconds": {"asking the teacher": asking, "training": result.seconds},
        **kept.to_record(),
        "short template, calibrated": short_calibrated(model, task, train, test),
    }


def main():
    options = parse()
    RESULTS.mkdir(exist_ok=True)
    done = {(row["task"], row["teacher"], row["seed"]) for row in read_rows(ROWS)}
    model = None
    for file, name in [] if options.summary else RUNS:
        task = Task.from_file(f"recipes/tasks/{file}.yaml")
        for seed in options.seeds:
            if (task.name, name, seed) in done:
                continue
            model = model or PromptModel(load_base(DEMO_BASE, name=DEMO_NAME))
            row = run(options, model, task, name, seed)
            keep_row(ROWS, row)
            print(f"{task.name}, {name}, seed {seed}: {row['share']}", file=sys.stderr)
    write("distillation", {"base": DEMO_NAME, "virtual_tokens": TOKENS, "runs": read_rows(ROWS)})


if __name__ == "__main__":
    main()
