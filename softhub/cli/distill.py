"""`softhub distill`: a long hard prompt, or few-shot examples, as a short soft prompt."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import (
    BaseOption,
    DeviceOption,
    HubOption,
    RevisionOption,
    SubsetOption,
    TaskOption,
    adapter_folder,
    option,
)
from softhub.cli.output import emit_facts
from softhub.cli.predict import read_inputs
from softhub.errors import ConfigError, TaskError
from softhub.terminal import counted, phase

if TYPE_CHECKING:
    from softhub.experiments.distillation import Teacher
    from softhub.inference.engine import PromptModel
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks import Example, Splits, Task, Template
    from softhub.training import FitResult
    from softhub.training.peft_config import PromptConfig

_DEV_SHARE = 5  # every fifth text of a file is a dev text

TemplateOption = Annotated[
    str | None,
    option("Teacher: a template, or the number of one in the task's hard_templates.", "TEMPLATE"),
]
TeacherOption = Annotated[str | None, option("Teacher: an adapter of this base model.", "ADAPTER")]
TextsOption = Annotated[
    str | None, option("Train on these texts (one per line, or .jsonl).", "FILE")
]
StepsOption = Annotated[
    str, option("Optimizer steps; auto: until the loss on dev stops falling.", "STEPS")
]
InitOption = Annotated[
    str,
    option("auto, task, text, labels, vocabulary or random; or the folder of an adapter.", "INIT"),
]


class PromptType(str, Enum):
    """What `--prompt-type` takes."""

    PROMPT = "prompt"
    PREFIX = "prefix"


PromptTypeOption = Annotated[
    PromptType, option("prompt, or prefix: keys and values in every layer.", "TYPE")
]


def distill(
    *,
    task: TaskOption,
    base: BaseOption,
    base_name: Annotated[str | None, option("Name of the base model in the card.", "NAME")] = None,
    template: TemplateOption = None,
    shots: Annotated[
        int | None, option("Teacher: K examples of the train split.", "K", min=1)
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Teacher: the task's system text.")
    ] = False,
    teacher: TeacherOption = None,
    bias_corrected: Annotated[
        bool, typer.Option("--bias-corrected", help="Remove the label bias of the teacher.")
    ] = False,
    texts: TextsOption = None,
    tokens: Annotated[int, option("Virtual tokens.", "P", min=1)] = 20,
    prompt_type: PromptTypeOption = PromptType.PROMPT,
    max_steps: StepsOption = "120",
    learning_rate: Annotated[float | None, option("Peak learning rate.", "RATE")] = None,
    init: InitOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per step.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    max_train_examples: SubsetOption = None,
    max_dev_examples: SubsetOption = 200,
    max_test_examples: SubsetOption = None,
    output_dir: Annotated[Path, option("Folder of the run.", "DIR")] = Path("runs/distilled"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint in --output-dir.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the finished run in --output-dir.")
    ] = False,
    revision: RevisionOption = None,
    hub: HubOption = None,
    device: DeviceOption = None,
) -> None:
    """Distill a long prompt into a short soft prompt.

    The base model with the long prompt is the teacher. The student, a soft prompt with the short
    template of the task, is trained to give the same answers. Training needs no labels. Choose the
    teacher with one of --template, --shots, --system and --teacher.

    Prints how much of the teacher's score the student retains (if the test split has labels) and
    how many tokens it saves. Adapter, checkpoints and report.json are in --output-dir. After Ctrl-C
    the run can be resumed with --resume.
    """
    from softhub.experiments.recipe import refuse_finished_run
    from softhub.tasks import Task

    if not (resume or overwrite):
        refuse_finished_run(output_dir)
    loaded_task = Task.from_file(task)
    options = {"template": template, "shots": shots, "system": system, "teacher": teacher}
    kind, value = _chosen_teacher(loaded_task, options)
    args = _arguments(output_dir, max_steps, batch_size, seed, learning_rate)
    data = _read(loaded_task, texts, max_train_examples, max_dev_examples, max_test_examples)
    if kind == "teacher":
        value = adapter_folder(value, hub=hub, revision=revision)
    if kind == "shots":
        value = _shots(loaded_task, value, seed)
    from softhub.experiments.distillation import BiasCorrectedTeacher
    from softhub.experiments.distillation import distill as fit
    from softhub.inference.engine import PromptModel
    from softhub.model.loading import load_base

    start = _start(output_dir, init, resume)
    with phase(f"Loading {base}"):
        model = PromptModel(load_base(base, name=base_name, device_map=device))
    imitated = _teacher(model, loaded_task, kind, value)
    if bias_corrected:
        imitated = BiasCorrectedTeacher(imitated, data.train)
    student = replace(loaded_task, system="") if system else loaded_task
    config = _config(model, imitated, prompt_type, tokens)
    result = fit(
        model.base, student, config, data, teacher=imitated, args=args, init=start, resume=resume
    )
    _finish(model, student, imitated, data, result, output_dir)


def _chosen_teacher(task: "Task", options: Mapping[str, Any]) -> tuple[str, Any]:
    given = [(name, value) for name, value in options.items() if value not in (None, False)]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name, _ in given) or "none"
        raise typer.BadParameter(
            f"found {found}; give one teacher: --template TEMPLATE, --shots K, --system or "
            "--teacher ADAPTER"
        )
    kind, value = given[0]
    if kind == "system" and not task.system:
        raise TaskError(
            f"The task {task.name} has no system text to distill. Add a 'system' key to the task "
            "file, or use --template or --shots."
        )
    return kind, _template(task, value) if kind == "template" else value


def _template(task: "Task", value: str) -> "Template":
    """Return a hard template by its number, or a template with the given text."""
    from softhub.tasks import Template

    if not value.isdecimal():
        template = Template(value)
        replace(task, template=template)  # checks that the template suits the task
        return template
    number, hard = int(value), task.hard_templates
    if 1 <= number <= len(hard):
        return hard[number - 1]
    raise TaskError(
        f"Found --template {number}, but the task {task.name} has {len(hard)} hard_templates. Give "
        "the number of one of them (from 1), or the text of a template."
    )


def _read(
    task: "Task", texts: str | None, train: int | None, dev: int | None, test: int | None
) -> "Splits":
    from softhub.tasks import Example, Splits
    from softhub.tasks.loading import to_inputs

    has_test = task.dataset is not None and "test" in task.dataset.split_names
    scored = task.load("test", limit=test) if has_test else []
    if texts is None:
        return Splits(task.load("train", limit=train), task.load("dev", limit=dev), scored)
    column = task.text_column
    found = read_inputs(None, texts)
    inputs = found if isinstance(found, list) else to_inputs(task, found)
    rows = [{column: text} if isinstance(text, str) else text for text in inputs]
    examples = [Example(row, text_column=column) for row in rows]
    chosen, rest = examples[::_DEV_SHARE], examples[:]
    del rest[::_DEV_SHARE]
    if not rest:
        raise ConfigError(
            f"{texts} contains {counted(len(rows), 'text')}. Distillation needs two or more."
        )
    return Splits(rest[:train], chosen[:dev], scored)


def _shots(task: "Task", count: int, seed: int) -> "list[Example]":
    from softhub.tasks.sampling import choose_shots

    rows = task.load("train")
    if count > len(rows):
        raise ConfigError(
            f"--shots is {count}, but the train split has {counted(len(rows), 'row')}. Give a "
            "smaller number."
        )
    return choose_shots(task, rows, count, seed)


def _start(folder: Path, init: str, resume: bool) -> "str | SoftPrompt | None":
    """Return the initialization; training would find what is wrong only after the teacher."""
    from softhub.training.checkpoints import check_resumable, check_writable
    from softhub.training.initialization import load_init

    if resume:
        check_resumable(folder)
    check_writable(folder)
    return load_init(init)


def _teacher(model: "PromptModel", task: "Task", kind: str, value: Any) -> "Teacher":
    from softhub.experiments.distillation import FewShotTeacher, ModelTeacher
    from softhub.model.prompt import SoftPrompt

    if kind == "shots":
        return FewShotTeacher(model, task, task.template, value)
    if kind == "template":
        return ModelTeacher(model, replace(task, template=value))
    prompt = SoftPrompt.from_pretrained(value) if kind == "teacher" else None
    return ModelTeacher(model, task, prompt=prompt)


def _arguments(
    folder: Path, steps: str, batch_size: int, seed: int, learning_rate: float | None
) -> Any:
    from softhub.training import PromptTrainingArguments

    every = min(20, int(steps)) if steps.isdecimal() else 20
    return PromptTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        eval_steps=every,
        save_steps=every,
        per_device_train_batch_size=batch_size,
        seed=seed,
        learning_rate=learning_rate,
    )


def _config(
    model: "PromptModel", teacher: "Teacher", prompt_type: PromptType, tokens: int
) -> "PromptConfig":
    """Return PEFT's configuration of the student; only a prompt can start from a text."""
    from peft import PrefixTuningConfig, PromptTuningConfig

    options: dict[str, Any] = {"task_type": model.base.task_type, "num_virtual_tokens": tokens}
    if prompt_type is PromptType.PREFIX:
        return PrefixTuningConfig(**options)
    return PromptTuningConfig(**options, prompt_tuning_init_text=teacher.instruction)


def _finish(
    model: "PromptModel",
    task: "Task",
    teacher: "Teacher",
    data: "Splits",
    result: "FitResult",
    folder: Path,
) -> None:
    """Save the student, and print what it retains; without a test split only its agreement."""
    from softhub.experiments.distillation import agreement, evaluate_student, request_tokens
    from softhub.experiments.experiment import RunReport

    prompt, soft, baselines = result.prompt, None, {}
    if data.test:
        retention = evaluate_student(model, task, prompt, teacher, data.test)
        soft, baselines = (
            retention.student,
            {"teacher": retention.teacher, "short template": retention.short},
        )
        record = {**retention.to_record(), "split": "test"}
    else:
        alike = agreement(model, task, prompt, teacher, data.dev)
        tokens = request_tokens(model, task, prompt, teacher, data.dev[0])
        record = {"agreement": alike, "split": "dev", "tokens": tokens}
    details = {"teacher": teacher.source, "distillation": record}
    report = RunReport(result, soft, baselines, details)
    report.save(folder)
    report.print()
    emit_facts([*_retained(record, generates=task.kind == "generation")])


def _retained(record: Mapping[str, Any], *, generates: bool) -> Iterator[tuple[str, str]]:
    for metric, share in record.get("share", {}).items():
        if share is not None:
            value, low, high = (f"{100 * share[key]:.1f}" for key in ("value", "low", "high"))
            yield "retained", f"{value} % of the teacher's {metric} ({low} to {high})"
    what = "chrF with the teacher's texts" if generates else "% of the answers"
    yield "agreement", f"{100 * record['agreement']:.1f} {what} on the {record['split']} split"
    teacher, student = record["tokens"]["teacher"], record["tokens"]["student"]
    shown = f"{student} per request in addition to the text"
    if teacher is not None:
        saved = f"{teacher - student} fewer ({1 - student / teacher:.0%})"
        shown += f"; the teacher needs {teacher}, {saved}"
    yield "tokens", shown
