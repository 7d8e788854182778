"""Every way of doing one task on one base, each as a function that gives a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from peft import LoraConfig, PromptTuningConfig

from softhub.errors import ConfigError, did_you_mean
from softhub.evaluation.evaluate import Evaluation, evaluate, judge
from softhub.evaluation.few_shot import (
    generate_few_shot,
    predict_few_shot,
    shown_tokens,
)
from softhub.evaluation.hard_prompts import (
    HardPrompt,
    choose_hard_prompts,
    choose_label,
    evaluate_hard_prompts,
    majority_class,
    mean_log_probabilities,
)
from softhub.experiments.comparison.store import ComparedRow
from softhub.experiments.comparison.weights import WeightsResult, fit_weights
from softhub.experiments.report import folder_bytes
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from softhub.metrics import compute
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Splits, Task, Template
from softhub.tasks.sampling import choose_shots
from softhub.training import FitResult, PromptTrainingArguments, fit

METHODS = (
    "majority label",
    "zero-shot",
    "zero-shot, calibrated",
    "few-shot",
    "soft prompt",
    "soft-prompt ensemble",
    "LoRA",
    "full fine-tuning",
)


@dataclass(frozen=True)
class Contest:
    """One task, one base, one split of the data: what all methods have in common.

    Attributes:
        task: The task.
        train: Examples to learn from, and to draw shots from.
        dev: Examples that choose templates and checkpoints.
        test: Examples that judge.
        load: Loads the base anew, for methods that change its weights.
        args: Training arguments; each run has its own seed and folder below `output_dir`.
        seeds: Seeds of what is trained or drawn.
        virtual_tokens: Lengths of soft prompts.
        ensemble_of: Length of the prompts that the ensemble is of.
        init: Where soft prompts start; see `fit`.
        shots: Numbers of solved examples in few-shot prompts.
        run_code: Whether generated code is run with its tests; see `pipeline.judge`.
        lora_rate: Learning rate of LoRA.
        lora_rank: Rank of LoRA's matrices, beside every linear layer.
        fine_tuning_rate: Learning rate of full fine-tuning.
    """

    task: Task
    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    load: Callable[[], BaseModel]
    args: PromptTrainingArguments
    seeds: Sequence[int] = (0, 1, 2)
    virtual_tokens: Sequence[int] = (1, 5, 20, 50, 100)
    ensemble_of: int = 20
    init: str | None = None
    shots: Sequence[int] = (4, 8)
    run_code: bool = False
    lora_rate: float = 5e-4
    lora_rank: int = 8
    fine_tuning_rate: float = 2e-5

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base that all prompts share."""
        return self.load()

    @cached_property
    def hard_prompts(self) -> Sequence[HardPrompt]:
        """The best hard templates on dev, as they are and calibrated."""
        model = PromptModel(self.base)
        return choose_hard_prompts(model, self.task, self.dev, run_code=self.run_code)

    @cached_property
    def hard_evaluations(self) -> Mapping[str, Evaluation]:
        """What they score on test."""
        model = PromptModel(self.base)
        return evaluate_hard_prompts(
            model, self.task, self.hard_prompts, self.test, run_code=self.run_code
        )

    def arguments(self, name: str, seed: int, **changes: Any) -> PromptTrainingArguments:
        """Training arguments of one run."""
        folder = str(Path(self.args.output_dir) / "runs" / f"{name}-seed{seed}")
        return replace(self.args, output_dir=folder, seed=seed, **changes)

    def adapter(self, tokens: int, seed: int) -> Path:
        """Folder of one soft prompt."""
        return Path(self.args.output_dir) / "adapters" / f"p{tokens}-seed{seed}"


@dataclass(frozen=True)
class Job:
    """A row to be: what identifies it, and how to get it."""

    method: str
    setting: str
    seed: int | None
    run: Callable[[], ComparedRow]

    @property
    def key(self) -> tuple[str, str, int | None]:
        """As `ComparedRow.key`."""
        return self.method, self.setting, self.seed


def jobs(contest: Contest, methods: Sequence[str] = METHODS) -> Iterator[Job]:
    """The rows of a comparison, cheap ones first, then seed by seed.

    Args:
        contest: What is compared.
        methods: Names out of `METHODS`.

    Raises:
        ConfigError: There is no such method.
    """
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"Unknown method {method!r}{did_you_mean(method, METHODS)}")
    classification = contest.task.kind == "classification"
    everything = [*_hard_jobs(contest, classification)]
    for seed in contest.seeds:
        everything += _trained_jobs(contest, seed)
        if not contest.task.multilabel:  # what is written out is one answer
            everything += _few_shot_jobs(contest, seed)
    if classification and len(contest.seeds) > 1:
        setting = f"{len(contest.seeds)} of P = {contest.ensemble_of}"
        everything.append(
            Job("soft-prompt ensemble", setting, None, partial(_ensemble, contest, setting))
        )
    return (job for job in everything if job.method in _wanted(methods, contest))


def _wanted(methods: Sequence[str], contest: Contest) -> set[str]:
    shots = {f"{count}-shot" for count in contest.shots} if "few-shot" in methods else set()
    return {*methods} | shots


def _hard_jobs(contest: Contest, classification: bool) -> Iterator[Job]:
    if classification:
        yield Job("majority label", "", None, partial(_majority, contest))
    names = ("zero-shot", "zero-shot, calibrated") if classification else ("zero-shot",)
    for name in names:
        yield Job(name, "", None, partial(_zero_shot, contest, name))


def _trained_jobs(contest: Contest, seed: int) -> Iterator[Job]:
    for tokens in contest.virtual_tokens:
        run = partial(_soft_prompt, contest, tokens, seed)
        yield Job("soft prompt", f"P = {tokens}", seed, run)
    yield Job("LoRA", f"rank {contest.lora_rank}", seed, partial(_lora, contest, seed))
    yield Job("full fine-tuning", "", seed, partial(_full, contest, seed))


def _few_shot_jobs(contest: Contest, seed: int) -> Iterator[Job]:
    run = _few_shot_texts if contest.task.kind == "generation" else _few_shot
    for count in contest.shots:
        yield Job(f"{count}-shot", "", seed, partial(run, contest, count, seed))


# --- the methods ---


def _majority(contest: Contest) -> ComparedRow:
    evaluation = majority_class(contest.task, contest.train, contest.test)
    return _row(evaluation, method="majority label")


def _zero_shot(contest: Contest, name: str) -> ComparedRow:
    chosen = next(hard for hard in contest.hard_prompts if hard.name == name)
    return _row(
        contest.hard_evaluations[name],
        method=name,
        prompt_tokens=_frame_tokens(contest, chosen.template),
        details={"template": chosen.template.text, "dev_score": chosen.dev_score},
    )


def _few_shot(contest: Contest, count: int, seed: int) -> ComparedRow:
    """As it is or calibrated, whichever is better on dev."""
    task, model = contest.task, PromptModel(contest.base)
    template = contest.hard_prompts[0].template
    shots = choose_shots(task, contest.train, count, seed)
    dev = predict_few_shot(model, task, template, shots, contest.dev)
    references = [str(example.label) for example in contest.dev]
    dev_scores, biases = {}, {"as it is": None, "calibrated": mean_log_probabilities(dev)}
    for name, bias in biases.items():
        answers = [choose_label(prediction, bias) for prediction in dev]
        dev_scores[name] = compute((task.metrics or ("accuracy",))[0], answers, references)
    best = max(dev_scores, key=dev_scores.__getitem__)
    start = time.perf_counter()
    test = predict_few_shot(model, task, template, shots, contest.test)
    seconds = time.perf_counter() - start
    shown = shown_tokens(model, task, template, shots)
    return _row(
        judge(task, contest.test, [choose_label(p, biases[best]) for p in test], seconds),
        method=f"{count}-shot",
        seed=seed,
        prompt_tokens=shown + _frame_tokens(contest, template),
        details={"template": template.text, "chosen": best, "dev_scores": dev_scores},
    )


def _few_shot_texts(contest: Contest, count: int, seed: int) -> ComparedRow:
    task, model = contest.task, PromptModel(contest.base)
    template = contest.hard_prompts[0].template
    shots = choose_shots(task, contest.train, count, seed)
    start = time.perf_counter()
    texts = generate_few_shot(model, task, template, shots, contest.test)
    seconds = time.perf_counter() - start
    shown = shown_tokens(model, task, template, shots)
    return _row(
        judge(task, contest.test, texts, seconds, run_code=contest.run_code),
        method=f"{count}-shot",
        seed=seed,
        prompt_tokens=shown + _frame_tokens(contest, template),
        details={"template": template.text},
    )


def _soft_prompt(contest: Contest, tokens: int, seed: int) -> ComparedRow:
    task, base = contest.task, contest.base
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
    args = contest.arguments(f"p{tokens}", seed)
    data = Splits([*contest.train], [*contest.dev], [])
    result = fit(base, task, config, data, args=args, init=contest.init)
    folder = result.prompt.save_pretrained(contest.adapter(tokens, seed))
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    return _row(
        evaluate(model, task, contest.test, prompt="prompt", run_code=contest.run_code),
        method="soft prompt",
        setting=f"P = {tokens}",
        seed=seed,
        trainable_parameters=result.prompt.vectors.numel(),
        bytes=folder_bytes(folder),
        prompt_tokens=tokens + _frame_tokens(contest, task.template),
        **_training(result),
    )


def _ensemble(contest: Contest, setting: str) -> ComparedRow:
    tokens, model, task = contest.ensemble_of, PromptModel(contest.base), contest.task
    folders = [contest.adapter(tokens, seed) for seed in contest.seeds]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(
            f"The ensemble needs soft prompts of {tokens} tokens ({', '.join(missing)} missing): "
            f"compare them too, or set ensemble_of."
        )
    names = [model.load_prompt(folder, name=folder.name) for folder in folders]
    start = time.perf_counter()
    rows = [example.row for example in contest.test]
    predictions = predict_ensemble(model, rows, prompts=names, progress="ensemble")
    seconds = time.perf_counter() - start
    prompts = [SoftPrompt.from_pretrained(folder) for folder in folders]
    return _row(
        judge(task, contest.test, [p.best for p in predictions], seconds),
        method="soft-prompt ensemble",
        setting=setting,
        trainable_parameters=sum(prompt.vectors.numel() for prompt in prompts),
        bytes=sum(map(folder_bytes, folders)),
        prompt_tokens=len(folders) * (tokens + _frame_tokens(contest, task.template)),
    )


def _lora(contest: Contest, seed: int) -> ComparedRow:
    rank = contest.lora_rank
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return _trained_weights(
        contest, "LoRA", seed, contest.lora_rate, lora=lora, setting=f"rank {rank}"
    )


def _full(contest: Contest, seed: int) -> ComparedRow:
    return _trained_weights(contest, "full fine-tuning", seed, contest.fine_tuning_rate)


def _trained_weights(
    contest: Contest,
    method: str,
    seed: int,
    rate: float,
    *,
    lora: LoraConfig | None = None,
    setting: str = "",
) -> ComparedRow:
    base = contest.load()  # its own copy: the weights change
    args = contest.arguments(
        method.replace(" ", "-"),
        seed,
        learning_rate=rate,
        learning_rate_rule=None,
        save_strategy="no",
        load_best_model_at_end=False,
    )
    result = fit_weights(
        base, contest.task, train=contest.train, dev=contest.dev, args=args, lora=lora
    )
    return _row(
        evaluate(PromptModel(base), contest.task, contest.test, run_code=contest.run_code),
        method=method,
        setting=setting,
        seed=seed,
        trainable_parameters=result.trainable_parameters,
        bytes=result.bytes,
        prompt_tokens=_frame_tokens(contest, contest.task.template),
        details={"learning_rate": rate},
        **_training(result),
    )


# --- what rows have in common ---


def _row(evaluation: Evaluation, **fields: Any) -> ComparedRow:
    ends = [outcome.kind for outcome in evaluation.outcomes]
    others = {"code": list(evaluation.programs), "outcomes": ends}
    return ComparedRow(
        metrics={name: interval.value for name, interval in evaluation.metrics.items()},
        predictions=list(evaluation.predictions),
        judged={kind: judged for kind, judged in others.items() if judged},
        predict_seconds=evaluation.seconds / len(evaluation.predictions),
        **fields,
    )


def _training(result: FitResult | WeightsResult) -> dict[str, Any]:
    """What a training run says of itself; its history is that on dev."""
    history = [
        {key.removeprefix("eval_"): value for key, value in logs.items()}
        for logs in result.history
        if "eval_loss" in logs
    ]
    return {
        "train_seconds": result.seconds,
        "steps": result.steps,
        "best_step": result.best_step,
        "history": history,
    }


def _frame_tokens(contest: Contest, template: Template) -> int:
    """Tokens that a template puts around the text of the first test example."""
    encoder = PromptModel(contest.base).encoder
    return encoder.tokens_around(template, contest.test[0].row, contest.task.text_column)
