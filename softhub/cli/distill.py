"""`softhub distill`: a long hard prompt, or few-shot examples, as a short soft prompt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import HubOption, RevisionOption, adapter_folder
from softhub.cli.output import emit_facts, quiet_libraries, say
from softhub.cli.predict import BaseOption, DeviceMapOption, read_inputs
from softhub.errors import ConfigError, TaskError
from softhub.experiments.console import INTERRUPTED

if TYPE_CHECKING:
    from softhub.experiments.distillation import Retention, Teacher
    from softhub.inference.engine import PromptModel
    from softhub.tasks import Example, Task, Template
    from softhub.training import FitResult

_DEV_SHARE = 5  # of a file of texts, every fifth chooses the checkpoint
_SHOWN = 60


@dataclass(frozen=True)
class _Texts:
    """What is learned from, what chooses, and what judges (none without labelled test texts)."""

    train: "Sequence[Example]"
    dev: "Sequence[Example]"
    test: "Sequence[Example]"


def distill(
    *,
    task: Annotated[
        Path,
        typer.Option(
            "--task",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Task (YAML); its template is the short one that stays.",
            show_default=False,
        ),
    ],
    base: BaseOption,
    base_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The base's canonical name, for the card.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="N_OR_TEXT",
            help="Teacher: this template; a number takes that one of the task's hard_templates.",
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Teacher: so many solved examples out of train.")
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Teacher: the task's system text, which goes.")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="REPO_OR_FOLDER", help="Teacher: another adapter of this base."),
    ] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Take the teacher's liking for some labels off.")
    ] = False,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Learn from these texts, one a line or .jsonl, rather than from train and dev.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Virtual tokens of the student.")] = 20,
    max_steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 120,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Peak learning rate; else by the rule.")
    ] = None,
    learning_rate_rule: Annotated[
        str | None, typer.Option(metavar="RULE", help="scaled (the default) or auto.")
    ] = None,
    init: Annotated[
        str, typer.Option(metavar="INIT", help="auto, task, text, labels, vocabulary or random.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of a step.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the shots, the start and the order.")] = 0,
    max_train_examples: Annotated[int | None, typer.Option(min=1, help="A fixed subset.")] = None,
    max_dev_examples: Annotated[int | None, typer.Option(min=1, help="A fixed subset.")] = 200,
    max_test_examples: Annotated[int | None, typer.Option(min=1, help="A fixed subset.")] = None,
    output_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where checkpoints, adapter and report go.")
    ] = Path("runs/distilled"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --output-dir.")
    ] = False,
    revision: RevisionOption = None,
    hub: HubOption = None,
    device_map: DeviceMapOption = None,
) -> None:
    """Distil a long prompt into a short soft prompt.

    The base answers each text behind the long prompt (the teacher); a soft prompt before the task's
    own short template is trained to make it answer the same. No label is looked at: those of test
    only judge. Give one of --template, --shots, --system and --teacher.

    Says how much of the teacher's score and how many tokens of each request are kept; --output-dir
    has the adapter and report.json. Ctrl-C leaves a run that --resume goes on with.
    """
    whole = _task(task)
    asked = _asked({"template": template, "shots": shots, "system": system, "teacher": teacher})
    _check(whole, *asked)
    quiet_libraries()
    from softhub.errors import TrainingInterrupted
    from softhub.inference.engine import PromptModel
    from softhub.model.base import load_base
    from softhub.training import PromptTrainingArguments

    data = _read(whole, texts, max_train_examples, max_dev_examples, max_test_examples)
    folder = adapter_folder(teacher, hub=hub, revision=revision) if teacher else None
    model = PromptModel(load_base(base, name=base_name, device_map=device_map))
    imitated = _teacher(model, whole, *asked, folder, seed)
    if calibrated:
        from softhub.experiments.distillation import BiasCorrectedTeacher

        imitated = BiasCorrectedTeacher(imitated, data.train)
    every = min(20, max_steps)
    args = PromptTrainingArguments(
        output_dir=str(output_dir),
        max_steps=max_steps,
        eval_steps=every,
        save_steps=every,
        per_device_train_batch_size=batch_size,
        seed=seed,
        learning_rate=learning_rate,
        learning_rate_rule=learning_rate_rule,
    )
    student = replace(whole, system="") if system else whole
    try:
        result = _train(model, student, imitated, data, args, tokens, init, resume)
    except TrainingInterrupted:
        say(f"stopped; a checkpoint is in {output_dir}: the same command with --resume goes on")
        raise typer.Exit(INTERRUPTED) from None
    _finish(model, student, imitated, data, result, output_dir)


def _task(path: Path) -> "Task":
    from softhub.tasks import Task

    return Task.from_file(path)


def _asked(options: dict[str, Any]) -> tuple[str, Any]:
    """The one option that names the teacher, and its value."""
    given = [(name, value) for name, value in options.items() if value not in (None, False)]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name, _ in given) or "none"
        raise typer.BadParameter(
            f"found {found}; give one teacher: --template N_OR_TEXT, --shots K, --system or "
            "--teacher ADAPTER"
        )
    return given[0]


def _check(task: "Task", kind: str, value: Any) -> None:
    """Refuse, before anything is loaded, a teacher that the task cannot have."""
    if kind == "system" and not task.system:
        raise TaskError(
            f"The task {task.name} has no system text to distil: write `system: …` in its file, or "
            "use --template or --shots."
        )
    if kind == "template":
        _template(task, value)


def _template(task: "Task", value: str) -> "Template":
    """A hard template by its number, or the text itself."""
    from softhub.tasks import Template

    if not value.isdecimal():
        template = Template(value)
        replace(task, template=template)  # checks that it suits the task
        return template
    number, hard = int(value), task.hard_templates
    if 1 <= number <= len(hard):
        return hard[number - 1]
    lines = "; ".join(f"{n}: {each.text!r:.{_SHOWN}}" for n, each in enumerate(hard, start=1))
    raise TaskError(
        f"The task {task.name} has {len(hard)} hard_templates, and --template asks for number "
        f"{number} ({lines or 'write some in its file, or give the text itself'})."
    )


def _read(
    task: "Task", texts: str | None, train: int | None, dev: int | None, test: int | None
) -> _Texts:
    from softhub.tasks import Example

    judging = task.dataset is not None and "test" in task.dataset.split_names
    judges = task.load("test", limit=test) if judging else []
    if texts is None:
        return _Texts(task.load("train", limit=train), task.load("dev", limit=dev), judges)
    column = task.text_column
    rows = [{column: text} if isinstance(text, str) else text for text in read_inputs(None, texts)]
    examples = [Example(row, text_column=column) for row in rows]
    chosen, rest = examples[::_DEV_SHARE], examples[:]
    del rest[::_DEV_SHARE]
    if not rest:
        raise ConfigError(f"{texts} holds {len(rows)} text; expected two or more to learn from")
    return _Texts(rest[:train], chosen[:dev], judges)


def _teacher(
    model: "PromptModel", task: "Task", kind: str, value: Any, folder: Path | None, seed: int
) -> "Teacher":
    from softhub.experiments.distillation import FewShotTeacher, ModelTeacher
    from softhub.model.prompt import SoftPrompt
    from softhub.tasks.sampling import choose_shots

    if kind == "shots":
        examples = choose_shots(task, task.load("train"), value, seed)
        return FewShotTeacher(model, task, task.template, examples)
    if kind == "template":
        return ModelTeacher(model, replace(task, template=_template(task, value)))
    prompt = SoftPrompt.from_pretrained(folder) if folder else None
    return ModelTeacher(model, task, prompt=prompt)


def _train(
    model: "PromptModel",
    task: "Task",
    teacher: "Teacher",
    data: _Texts,
    args: Any,
    tokens: int,
    init: str,
    resume: bool,
) -> "FitResult":
    from peft import PromptTuningConfig

    from softhub.experiments.distillation import distill
    from softhub.tasks import Splits

    config = PromptTuningConfig(
        task_type=model.base.task_type,
        num_virtual_tokens=tokens,
        prompt_tuning_init_text=teacher.instruction,
    )
    return distill(
        model.base,
        task,
        config,
        Splits([*data.train], [*data.dev], []),
        teacher=teacher,
        args=args,
        init=init,
        resume=resume,
    )


def _finish(
    model: "PromptModel",
    task: "Task",
    teacher: "Teacher",
    data: _Texts,
    result: "FitResult",
    folder: Path,
) -> None:
    """Judge and save the student, and say what is kept; without test texts only how alike it is."""
    from softhub.experiments.distillation import agreement, evaluate_student, request_tokens
    from softhub.experiments.report import write_run

    if data.test:
        kept = evaluate_student(model, task, result.prompt, teacher, data.test)
        baselines = {"teacher": kept.teacher, "short template": kept.short}
        record = {"teacher": teacher.source, "distillation": kept.to_record()}
        write_run(folder, result, kept.student, baselines, **record)
        facts = [*_shares(kept), ("like the teacher", _alike(task, kept.agreement, "test"))]
        emit_facts([*facts, ("tokens", _tokens(kept.tokens))])
        return
    alike = agreement(model, task, result.prompt, teacher, data.dev)
    tokens = request_tokens(model, task, result.prompt, teacher, data.dev[0])
    found = {"agreement": alike, "split": "dev", "tokens": tokens}
    write_run(folder, result, None, {}, teacher=teacher.source, distillation=found)
    emit_facts([("like the teacher", _alike(task, alike, "dev")), ("tokens", _tokens(tokens))])


def _shares(kept: "Retention") -> Iterator[tuple[str, str]]:
    for metric, share in kept.share.items():
        if share is not None:
            value, low, high = (100 * number for number in share)
            shown = f"{value:.1f} % of the teacher's {metric} ({low:.1f} to {high:.1f})"
            yield "kept", shown


def _alike(task: "Task", alike: float, split: str) -> str:
    if task.kind == "generation":
        return f"chrF {100 * alike:.1f} between its texts and the teacher's, on {split}"
    return f"{100 * alike:.1f} % of its answers, on {split}"


def _tokens(tokens: Mapping[str, int | None]) -> str:
    teacher, student = tokens["teacher"], tokens["student"]
    if teacher is None or student is None:
        return f"{student} beside each text"
    saved = f"{teacher - student} fewer ({1 - student / teacher:.0%})"
    return f"{student} beside each text where the teacher has {teacher}: {saved}"
