"""The methods of a comparison, each as a function that returns the contents of a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft import LoraConfig, PromptTuningConfig

from softhub.errors import ConfigError, did_you_mean
from softhub.evaluation.evaluate import Evaluation, evaluate, leading_metric, score_predictions
from softhub.evaluation.few_shot import (
    generate_few_shot,
    predict_few_shot,
    shown_tokens,
)
from softhub.evaluation.hard_prompts import choose_label, majority_class, mean_log_probabilities
from softhub.experiments.comparison.fine_tuning import WeightsResult, fit_weights
from softhub.experiments.comparison.method_names import (
    BIAS_CORRECTED,
    ENSEMBLE,
    FINE_TUNING,
    LORA,
    MAJORITY,
    METHODS,
    SOFT_PROMPT,
    ZERO_SHOT,
    method_family,
)
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import ComparedRow
from softhub.experiments.report import folder_bytes
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from softhub.metrics import compute
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Template
from softhub.tasks.sampling import choose_shots
from softhub.training import FitResult, fit

Fields = dict[str, Any]
"""Fields of a `ComparedRow` other than its key."""


@dataclass(frozen=True)
class Job:
    """A row that is still to be computed: its key, and a function that returns the other fields."""

    key: tuple[str, str, int | None]
    compute: Callable[[], Fields]

    def run(self) -> ComparedRow:
        """Compute the row."""
        method, setting, seed = self.key
        return ComparedRow(method=method, setting=setting, seed=seed, **self.compute())


def jobs(setup: ComparisonSetup) -> list[Job]:
    """Return the rows of a comparison, cheap ones first, then seed by seed.

    Raises:
        ConfigError: A method is unknown.
    """
    for method in setup.methods:
        if method not in METHODS:
            raise ConfigError(f"Unknown method {method!r}{did_you_mean(method, METHODS)}")
    return [job for job in _all_jobs(setup) if method_family(job.key[0]) in setup.methods]


def _all_jobs(setup: ComparisonSetup) -> Iterator[Job]:
    classification = setup.task.kind == "classification"
    if classification:
        yield Job((MAJORITY, "", None), partial(_majority, setup))
    for name in (ZERO_SHOT, BIAS_CORRECTED) if classification else (ZERO_SHOT,):
        yield Job((name, "", None), partial(_zero_shot, setup, name))
    for seed in setup.seeds:
        yield from _seed_jobs(setup, seed)
    if classification and len(setup.seeds) > 1:
        setting = f"{len(setup.seeds)} of P = {setup.ensemble_of}"
        yield Job((ENSEMBLE, setting, None), partial(_ensemble, setup))


def _seed_jobs(setup: ComparisonSetup, seed: int) -> Iterator[Job]:
    for tokens in setup.virtual_tokens:
        yield Job((SOFT_PROMPT, f"P = {tokens}", seed), partial(_soft_prompt, setup, tokens, seed))
    yield Job((LORA, f"rank {setup.lora_rank}", seed), partial(_lora, setup, seed))
    yield Job((FINE_TUNING, "", seed), partial(_fine_tuning, setup, seed))
    if not setup.task.multilabel:  # a solved example shows a single answer
        for count in setup.shots:
            yield Job((f"{count}-shot", "", seed), partial(_few_shot, setup, count, seed))


# --- the methods ---


def _majority(setup: ComparisonSetup) -> Fields:
    return _fields(majority_class(setup.task, setup.data.train, setup.data.test))


def _zero_shot(setup: ComparisonSetup, name: str) -> Fields:
    chosen = next(hard for hard in setup.hard_prompts if hard.name == name)
    return _fields(
        setup.hard_evaluations[name],
        prompt_tokens=_template_tokens(setup, chosen.template),
        details={"template": chosen.template.text, "dev_score": chosen.dev_score},
    )


def _few_shot(setup: ComparisonSetup, count: int, seed: int) -> Fields:
    task, model = setup.task, PromptModel(setup.base)
    template = setup.hard_prompts[0].template
    shots = choose_shots(task, setup.data.train, count, seed)
    answer = _generated if task.kind == "generation" else _classified
    answers, seconds, details = answer(setup, template, shots)
    shown = shown_tokens(model, task, template, shots)
    return _fields(
        score_predictions(
            task, setup.data.test, answers, seconds, run_code=setup.run_generated_code
        ),
        prompt_tokens=shown + _template_tokens(setup, template),
        details={"template": template.text, **details},
    )


_Answers = tuple[Sequence[str], float, Mapping[str, Any]]


def _classified(setup: ComparisonSetup, template: Template, shots: Sequence[Example]) -> _Answers:
    """Answer with the label prior or without it, whichever is better on dev."""
    task, model = setup.task, PromptModel(setup.base)
    metric = leading_metric(task)
    dev = predict_few_shot(model, task, template, shots, setup.data.dev)
    references = [str(example.label) for example in setup.data.dev]
    dev_scores, biases = {}, {"uncorrected": None, "bias-corrected": mean_log_probabilities(dev)}
    for name, bias in biases.items():
        answers = [choose_label(prediction, bias) for prediction in dev]
        dev_scores[name] = compute(metric.name, answers, references)
    best = max(dev_scores, key=lambda name: metric.goodness(dev_scores[name]))
    start = time.perf_counter()
    test = predict_few_shot(model, task, template, shots, setup.data.test)
    seconds = time.perf_counter() - start
    labels = [choose_label(prediction, biases[best]) for prediction in test]
    return labels, seconds, {"chosen": best, "dev_scores": dev_scores}


def _generated(setup: ComparisonSetup, template: Template, shots: Sequence[Example]) -> _Answers:
    start = time.perf_counter()
    model = PromptModel(setup.base)
    texts = generate_few_shot(model, setup.task, template, shots, setup.data.test)
    return texts, time.perf_counter() - start, {}


def _soft_prompt(setup: ComparisonSetup, tokens: int, seed: int) -> Fields:
    task, base = setup.task, setup.base
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
    args = setup.arguments(f"p{tokens}", seed)
    result = fit(base, task, config, setup.data, args=args, init=setup.init)
    folder = result.prompt.save_pretrained(setup.adapter(tokens, seed))
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    run_code = setup.run_generated_code
    return _fields(
        evaluate(model, task, setup.data.test, prompt="prompt", run_code=run_code),
        trainable_parameters=result.prompt.vectors.numel(),
        bytes=folder_bytes(folder),
        prompt_tokens=tokens + _template_tokens(setup, task.template),
        **_training(result),
    )


def _ensemble(setup: ComparisonSetup) -> Fields:
    tokens, model, task = setup.ensemble_of, PromptModel(setup.base), setup.task
    folders = [setup.adapter(tokens, seed) for seed in setup.seeds]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(
            f"The ensemble needs soft prompts of {tokens} tokens, and {', '.join(missing)} are "
            "missing. Add that length to virtual_tokens, or set ensemble_of to one that was "
            "trained."
        )
    names = [model.load_prompt(folder, name=folder.name) for folder in folders]
    start = time.perf_counter()
    rows = [example.row for example in setup.data.test]
    predictions = predict_ensemble(model, rows, prompts=names, progress="Evaluating the ensemble")
    seconds = time.perf_counter() - start
    prompts = [SoftPrompt.from_pretrained(folder) for folder in folders]
    return _fields(
        score_predictions(
            task, setup.data.test, [prediction.best for prediction in predictions], seconds
        ),
        trainable_parameters=sum(prompt.vectors.numel() for prompt in prompts),
        bytes=sum(map(folder_bytes, folders)),
        prompt_tokens=len(folders) * (tokens + _template_tokens(setup, task.template)),
    )


def _lora(setup: ComparisonSetup, seed: int) -> Fields:
    rank = setup.lora_rank
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return _trained_weights(setup, "LoRA", seed, setup.lora_rate, lora)


def _fine_tuning(setup: ComparisonSetup, seed: int) -> Fields:
    return _trained_weights(setup, "full-fine-tuning", seed, setup.fine_tuning_rate)


def _trained_weights(
    setup: ComparisonSetup, name: str, seed: int, rate: float, lora: LoraConfig | None = None
) -> Fields:
    base, task = setup.load(), setup.task  # a base of its own, because the weights change
    unsaved = {"save_strategy": "no", "load_best_model_at_end": False}
    args = setup.arguments(name, seed, learning_rate=rate, **unsaved)
    result = fit_weights(base, task, setup.data, args=args, lora=lora)
    return _fields(
        evaluate(PromptModel(base), task, setup.data.test, run_code=setup.run_generated_code),
        trainable_parameters=result.trainable_parameters,
        bytes=result.bytes,
        prompt_tokens=_template_tokens(setup, task.template),
        details={"learning_rate": rate},
        **_training(result),
    )


# --- what the rows share ---


def _fields(evaluation: Evaluation, **fields: Any) -> Fields:
    ends = [outcome.kind for outcome in evaluation.outcomes]
    judged = {"code": list(evaluation.programs), "outcomes": ends}
    return {
        "metrics": {name: interval.value for name, interval in evaluation.metrics.items()},
        "predictions": list(evaluation.predictions),
        "judged": {kind: values for kind, values in judged.items() if values},
        "predict_seconds": evaluation.seconds / len(evaluation.predictions),
        **fields,
    }


def _training(result: FitResult | WeightsResult) -> Fields:
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


def _template_tokens(setup: ComparisonSetup, template: Template) -> int:
    """Return the number of tokens that a template adds to the text of the first test example."""
    encoder = setup.base.encoder
    return encoder.tokens_around(template, setup.data.test[0].row, setup.task.text_column)
