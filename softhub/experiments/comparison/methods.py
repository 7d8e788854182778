"""The methods of a comparison, each as a function that returns the contents of a row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from peft import PrefixTuningConfig, PromptTuningConfig

from softhub.errors import BaseModelError, ConfigError, did_you_mean
from softhub.evaluation.evaluate import evaluate, leading_metric, score_predictions
from softhub.evaluation.few_shot import (
    few_shot_examples,
    few_shot_task,
    generate_few_shot,
    predict_few_shot,
    shown_tokens,
)
from softhub.evaluation.hard_prompts import choose_label, majority_class, mean_log_probabilities
from softhub.evaluation.preflight import fits
from softhub.evaluation.prompt_search import search_hard_prompt
from softhub.experiments.comparison.fields import (
    Fields,
    scored,
    template_tokens,
    text_bytes,
    trained,
)
from softhub.experiments.comparison.method_names import (
    BIAS_CORRECTED,
    ENSEMBLE,
    FEW_SHOT,
    IA3,
    MAJORITY,
    METHODS,
    OPTIMIZED,
    PREFIX,
    SOFT_PROMPT,
    ZERO_SHOT,
    method_family,
)
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import ComparedRow, RowStore
from softhub.experiments.comparison.trained_weights import ia3_refusal, weights_methods
from softhub.experiments.report import folder_bytes
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from softhub.metrics import compute
from softhub.model.prefix import prefix_shape
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Template
from softhub.tasks.sampling import choose_shots
from softhub.training import PromptTrainingArguments, fit
from softhub.training.initialization import embed_tokens
from softhub.training.peft_config import PromptConfig
from softhub.training.provenance import manifest_of

logger = logging.getLogger("softhub")


@dataclass(frozen=True)
class Job:
    """A row of a comparison.

    Attributes:
        key: Method, setting and seed.
        compute: Returns the other fields.
        options: Options on which the method's rows depend, beyond the setting; they are recorded in
            the details.
    """

    key: tuple[str, str, int | None]
    compute: Callable[[], Fields]
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> ComparedRow:
        """Compute the row."""
        method, setting, seed = self.key
        fields = self.compute()
        fields["details"] = {**fields.get("details", {}), **self.options}
        return ComparedRow(method=method, setting=setting, seed=seed, **fields)

    def check_options(self, rows: Sequence[ComparedRow], folder: str) -> None:
        """Check that the rows of the same method and setting have the same options.

        Rows of earlier versions, which did not record them, are accepted.

        Raises:
            ConfigError: A row has others.
        """
        for row in rows:
            found = {name: row.details.get(name, value) for name, value in self.options.items()}
            if row.key[:2] == self.key[:2] and found != self.options:
                name = ", ".join(filter(None, row.key[:2]))
                raise ConfigError(
                    f"{folder} contains rows of {name} with {_listed(found)}; expected "
                    f"{_listed(self.options)}, because a line of the table has one choice. Use the "
                    "options of those rows, leave the method out, or use another output_dir."
                )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def jobs(setup: ComparisonSetup) -> list[Job]:
    """Return the rows of a comparison, cheap ones first, then seed by seed.

    Raises:
        ConfigError: A method is unknown.
    """
    for method in setup.methods:
        if method not in METHODS:
            raise ConfigError(f"Unknown method {method!r}{did_you_mean(method, METHODS)}")
    chosen = [job for job in _all_jobs(setup) if method_family(job.key[0]) in setup.methods]
    refused = {method: reason for method, reason in _refusals(setup) if reason is not None}
    for method in {job.key[0] for job in chosen} & {*refused}:
        logger.warning("%s is left out: %s.", method, refused[method].rstrip("."))
    return [job for job in chosen if job.key[0] not in refused]


def _refusals(setup: ComparisonSetup) -> Iterator[tuple[str, str | None]]:
    """Yield the methods that not every base can run, with the reason if this one cannot."""
    if PREFIX in setup.methods:
        try:
            prefix_shape(setup.base)
        except BaseModelError as error:
            yield PREFIX, str(error)
    if IA3 in setup.methods:
        yield IA3, ia3_refusal(setup.base)
    for count in setup.shots if FEW_SHOT in setup.methods and not setup.task.multilabel else ():
        yield f"{count}-shot", _few_shot_refusal(setup, count)


def _few_shot_refusal(setup: ComparisonSetup, count: int) -> str | None:
    """Return why solved examples cannot be shown with all seeds and hard templates, if so."""
    task, model = setup.task, PromptModel(setup.base)
    if task.system is not None:
        return "the task is a chat, which is asked without solved examples"
    examples = [*setup.data.dev, *setup.data.test]
    for template, seed in product(task.hard_templates or (task.template,), setup.seeds):
        shown = (task, template, choose_shots(task, setup.data.train, count, seed))
        asked = few_shot_examples(*shown, examples)
        if not fits(setup.base, few_shot_task(model, *shown), asked):
            return f"with seed {seed}, not every text fits after the solved examples"
    return None


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
        seeds = {"seeds": sorted(setup.seeds)}
        yield Job((ENSEMBLE, setting, None), partial(_ensemble, setup), seeds)


def _seed_jobs(setup: ComparisonSetup, seed: int) -> Iterator[Job]:
    if setup.task.kind == "classification":
        budget = {"searched_texts": setup.searched_texts}
        yield Job((OPTIMIZED, "", seed), partial(_optimized, setup, seed), budget)
    lengths = {SOFT_PROMPT: setup.virtual_tokens, PREFIX: setup.prefix_tokens}
    for method, train in ((SOFT_PROMPT, _soft_prompt), (PREFIX, _prefix)):
        for tokens in lengths[method]:
            yield Job((method, f"P = {tokens}", seed), partial(train, setup, tokens, seed))
    for weights in weights_methods(setup):
        run, options = partial(weights.run, setup, seed), weights.options(setup)
        yield Job((weights.name, weights.setting, seed), run, options)
    if not setup.task.multilabel:  # a solved example shows a single answer
        for count in setup.shots:
            yield Job((f"{count}-shot", "", seed), partial(_few_shot, setup, count, seed))


# --- the methods ---


def _majority(setup: ComparisonSetup) -> Fields:
    return scored(majority_class(setup.task, setup.data.train, setup.data.test))


def _zero_shot(setup: ComparisonSetup, name: str) -> Fields:
    chosen = next(hard for hard in setup.hard_prompts if hard.name == name)
    return scored(
        setup.hard_evaluations[name],
        bytes=text_bytes(setup.task, chosen.template),
        prompt_tokens=template_tokens(setup, chosen.template),
        details={"template": chosen.template.text, "dev_score": chosen.dev_score},
    )


def _optimized(setup: ComparisonSetup, seed: int) -> Fields:
    task, model = setup.task, PromptModel(setup.base)
    train, dev, test = setup.data
    start = time.perf_counter()
    found = search_hard_prompt(model, task, train, dev, seed=seed, most_texts=setup.searched_texts)
    searched, start = time.perf_counter() - start, time.perf_counter()
    labels = found.answer(model, task, test)
    shown = shown_tokens(model, task, found.template, found.shots) if found.shots else 0
    template = Template(found.instruction + found.template.text)
    return scored(
        score_predictions(task, test, labels, time.perf_counter() - start),
        bytes=len(found.text.encode()),
        prompt_tokens=shown + template_tokens(setup, template),
        train_seconds=searched,
        details=found.to_record(),
    )


def _few_shot(setup: ComparisonSetup, count: int, seed: int) -> Fields:
    task, model = setup.task, PromptModel(setup.base)
    template = setup.hard_prompts[0].template
    shots = choose_shots(task, setup.data.train, count, seed)
    answer = _generated if task.kind == "generation" else _classified
    answers, seconds, details = answer(setup, template, shots)
    shown = shown_tokens(model, task, template, shots)
    return scored(
        score_predictions(
            task, setup.data.test, answers, seconds, run_code=setup.run_generated_code
        ),
        bytes=text_bytes(task, template, shots),
        prompt_tokens=shown + template_tokens(setup, template),
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
    config = PromptTuningConfig(task_type=setup.base.task_type, num_virtual_tokens=tokens)
    name = f"p{tokens}"
    return _trained_prompt(setup, name, config, setup.arguments(name, seed), setup.init)


def _prefix(setup: ComparisonSetup, tokens: int, seed: int) -> Fields:
    """Train a prefix with its own defaults: the init `task`, and the scaled learning rate."""
    config = PrefixTuningConfig(task_type=setup.base.task_type, num_virtual_tokens=tokens)
    name = f"prefix{tokens}"
    args = setup.arguments(name, seed, learning_rate=None)
    return _trained_prompt(setup, name, config, args, None)


def _trained_prompt(
    setup: ComparisonSetup,
    name: str,
    config: PromptConfig,
    args: PromptTrainingArguments,
    init: str | None,
) -> Fields:
    task, base = setup.task, setup.base
    candidates = _searched_starts(setup, config, args.seed) if init == "auto" else []
    result = fit(base, task, config, setup.data, args=args, init=init, init_candidates=candidates)
    folder = result.prompt.save_pretrained(setup.adapter(name, args.seed))
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    run_code = setup.run_generated_code
    used = result.prompt.manifest.provenance["training"]
    rate = {key: used[key] for key in ("learning_rate", "learning_rate_rule")}
    return scored(
        evaluate(model, task, setup.data.test, prompt="prompt", run_code=run_code),
        trainable_parameters=result.prompt.vectors.numel(),
        bytes=folder_bytes(folder),
        prompt_tokens=config.num_virtual_tokens + template_tokens(setup, task.template),
        **trained(result, init=result.init, **rate),
    )


def _searched_starts(setup: ComparisonSetup, config: PromptConfig, seed: int) -> list[SoftPrompt]:
    """Return the optimized hard prompt of this seed as a start, if its row has been computed.

    It is the embeddings of its text before the input: of the last tokens, where it is too long.
    """
    key, base = (OPTIMIZED, "", seed), setup.base
    rows = [row for row in RowStore(setup.args.output_dir).rows() if row.key == key]
    texts = [row.details["prompt"].rpartition(f"{{{setup.task.text_column}}}")[0] for row in rows]
    tokens, starts = int(config.num_virtual_tokens), []
    for ids in filter(None, map(base.encoder.tokens, texts)):
        vectors = embed_tokens(base, (ids * (tokens // len(ids) + 1))[-tokens:])
        manifest = manifest_of(base, vectors, task=setup.task, provenance={})
        starts.append(SoftPrompt(vectors, manifest))
    return starts


def _ensemble(setup: ComparisonSetup) -> Fields:
    tokens, model, task = setup.ensemble_of, PromptModel(setup.base), setup.task
    folders = [setup.adapter(f"p{tokens}", seed) for seed in setup.seeds]
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
    keys = [(SOFT_PROMPT, f"P = {tokens}", seed) for seed in setup.seeds]
    members = [row for row in RowStore(setup.args.output_dir).rows() if row.key in keys]
    return scored(
        score_predictions(
            task, setup.data.test, [prediction.best for prediction in predictions], seconds
        ),
        trainable_parameters=sum(prompt.vectors.numel() for prompt in prompts),
        bytes=sum(map(folder_bytes, folders)),
        prompt_tokens=len(folders) * (tokens + template_tokens(setup, task.template)),
        train_seconds=sum(row.train_seconds for row in members),
    )
