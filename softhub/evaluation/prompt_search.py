"""Search for the best hard prompt of a classification on dev, without a second model.

Instructions are put together from the task's own texts (APE, Zhou et al. 2022, arXiv 2211.01910,
has a language model write them) and combined with its hard templates; solved examples of the
training split are then added one at a time, each the best of a random pool. Candidates are compared
by successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): all on a few dev texts, the
better half on twice as many, and so on, so that few texts are spent on bad ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from softhub.evaluation.evaluate import leading_metric, references_of
from softhub.evaluation.few_shot import (
    few_shot_examples,
    few_shot_rows,
    few_shot_task,
    written_out,
)
from softhub.evaluation.hard_prompts import check_dev, choose_label, mean_log_probabilities
from softhub.evaluation.preflight import check_answers, fits
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import compute
from softhub.metrics.label_sets import split_labels
from softhub.tasks import Example, Task, Template
from softhub.tasks.sampling import choose_shots
from softhub.terminal import phase

_FIRST = 32  # dev texts on which all candidates are compared
_POOL = 8  # solved examples to choose from, at each place
_MOST_SHOTS = 4
_BATCH = 32


@dataclass(frozen=True)
class SearchedPrompt:
    """The best hard prompt of a search.

    Attributes:
        instruction: Text before everything else, or empty.
        template: The template of solved examples and texts.
        shots: Solved examples before each text, in order.
        bias: As in `HardPrompt`.
        dev_score: The value of the task's first metric on dev, by which it was chosen.
        candidates: Number of prompts that were compared.
        texts: Number of dev texts that were scored: one forward pass each, in batches.
        text: The whole prompt: instruction, solved examples, and the template of the input.
    """

    instruction: str
    template: Template
    shots: tuple[Example, ...]
    bias: Mapping[str, float] | None
    dev_score: float
    candidates: int
    texts: int
    text: str

    def answer(self, model: PromptModel, task: Task, examples: Sequence[Example]) -> list[str]:
        """Return the label of each example."""
        found = _predict(model, task, self.instruction, self.template, self.shots, examples)
        return [choose_label(prediction, self.bias) for prediction in found]

    def to_record(self) -> dict[str, Any]:
        """Return what was found, and the budget that it took."""
        return {
            "prompt": self.text,
            "shots": len(self.shots),
            "bias_corrected": self.bias is not None,
            "dev_score": self.dev_score,
            "candidates": self.candidates,
            "dev_texts_scored": self.texts,
        }


def search_hard_prompt(
    model: PromptModel,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    *,
    seed: int,
    most_texts: int = 4000,
) -> SearchedPrompt:
    """Search for the best hard prompt of a classification.

    Args:
        model: The engine.
        task: The task: its hard templates, description and labels are what prompts are made of.
        train: Examples that may be shown with their answers. There are none for a chat or a
            multi-label task.
        dev: The examples to choose on.
        seed: Draws the solved examples, and the order in which dev texts are used.
        most_texts: Most dev texts to score over all candidates. Comparisons that have begun are
            finished.

    Returns:
        The best prompt on dev, with or without the label bias removed, and the budget used.
        Prompts that leave no room for a text in the base's context are left out.

    Raises:
        DatasetError: There is no dev example, or one that does not fit with any prompt.
        TaskError: No prompt leaves room for a text.
    """
    check_dev(dev)
    search = _Search(model, task, dev, seed)
    with phase("Searching for a hard prompt on dev", most_texts, "text") as advance:
        best = search.best([_Candidate(*texts) for texts in combinations(task)])
        advance(search.texts)
        shows = task.system is None and not task.multilabel
        for place in range(_MOST_SHOTS if shows else 0):
            before = search.texts
            unshown = [example for example in train if example not in best.shots]
            pool = choose_shots(task, unshown, _POOL, _MOST_SHOTS * seed + place)
            previous = best
            best = search.best([best, *(best.showing(shot) for shot in pool)])
            advance(search.texts - before)
            if best is previous or search.texts >= most_texts:
                break
    return search.result(best)


def combinations(task: Task) -> list[tuple[str, Template]]:
    """Return each of the task's templates with no instruction, and with every one."""
    templates = dict.fromkeys([*task.hard_templates, task.template])
    texts = ["", *(f"{instruction}\n\n" for instruction in instructions(task))]
    return [(text, template) for text in texts for template in templates]


def instructions(task: Task) -> list[str]:
    """Return what a task says about itself: its description, its labels, and both."""
    described = task.description and f"{task.description.rstrip(' .')}."
    words = task.verbalizer.words if task.verbalizer else ()
    options = words and f"Options: {', '.join(first.strip() for _, (first, *_) in words)}."
    found = [part for part in (described, options) if part]
    found += ["\n".join(found)] if len(found) > 1 else []
    return [text for text in found if not Template(text).columns]  # braces would be a column


@dataclass(eq=False)
class _Candidate:
    """A prompt, and its predictions of the first dev texts."""

    instruction: str
    template: Template
    shots: tuple[Example, ...] = ()
    predictions: list[Prediction] = field(default_factory=list, init=False)

    def showing(self, shot: Example) -> _Candidate:
        """Return the same prompt with one more solved example before the others."""
        return _Candidate(self.instruction, self.template, (shot, *self.shots))


class _Search:
    """Comparisons of candidates on dev; `texts` and `candidates` count what they took."""

    def __init__(self, model: PromptModel, task: Task, dev: Sequence[Example], seed: int) -> None:
        self.model, self.task, self.metric = model, task, leading_metric(task)
        self.dev = random.Random(seed).sample(dev, len(dev))
        self.references = references_of(task, self.dev)
        self.texts = self.candidates = 0

    def best(self, candidates: Sequence[_Candidate]) -> _Candidate:
        """Return the best of some candidates, by successive halving."""
        left, rows = self._fitting(candidates), min(_FIRST, len(self.dev))
        while True:
            for candidate in left:
                self._predict_to(candidate, rows)
            # Sorting keeps the order of equals, so that a prompt is not replaced for nothing.
            left.sort(key=lambda candidate: self._goodness(candidate, rows), reverse=True)
            if len(left) == 1 or rows == len(self.dev):
                self._predict_to(left[0], len(self.dev))
                return left[0]
            left, rows = left[: -(-len(left) // 2)], min(2 * rows, len(self.dev))

    def _fitting(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Return the candidates with which all dev texts fit; that none does is an error."""
        base, asked = self.model.base, [self._asked(candidate) for candidate in candidates]
        pairs = zip(candidates, asked, strict=True)
        left = [candidate for candidate, texts in pairs if fits(base, *texts)]
        if not left:
            check_answers(base, *asked[0])
        return left

    def _asked(self, candidate: _Candidate) -> tuple[Task, list[Example]]:
        """Return the task with the candidate in its template, and the dev examples for it."""
        shown = (self.task, candidate.template, candidate.shots)
        whole = _whole_task(self.model, *shown, candidate.instruction)
        return whole, few_shot_examples(*shown, self.dev)

    def _predict_to(self, candidate: _Candidate, rows: int) -> None:
        """Predict the dev texts up to `rows` that a candidate has not predicted yet."""
        there = len(candidate.predictions)
        if there >= rows:
            return
        texts = self.dev[there:rows]
        self.candidates += not there
        self.texts += len(texts)
        prompt = (candidate.instruction, candidate.template, candidate.shots)
        candidate.predictions += _predict(self.model, self.task, *prompt, texts)

    def _goodness(self, candidate: _Candidate, rows: int) -> tuple[float, float]:
        """Return the score on the first `rows` dev texts, then the likelihood of their labels."""
        found, references = candidate.predictions[:rows], self.references[:rows]
        score, bias = self._score(found, references)
        return self.metric.goodness(score), _log_likelihood(found, bias, references)

    def _score(
        self, found: Sequence[Prediction], references: Sequence[str]
    ) -> tuple[float, Mapping[str, float] | None]:
        """Return the score with the label bias or without it, whichever is better."""
        ways = []
        for bias in (None, mean_log_probabilities(found)):
            labels = [choose_label(prediction, bias) for prediction in found]
            ways.append((compute(self.metric.name, labels, references), bias))
        return max(ways, key=lambda way: self.metric.goodness(way[0]))

    def result(self, best: _Candidate) -> SearchedPrompt:
        """Return the best candidate with what the search took."""
        score, bias = self._score(best.predictions, self.references)
        shown = written_out(self.task, best.template, best.shots)
        return SearchedPrompt(
            best.instruction,
            best.template,
            best.shots,
            bias,
            score,
            self.candidates,
            self.texts,
            best.instruction + shown + best.template.text,
        )


def _log_likelihood(
    found: Sequence[Prediction], bias: Mapping[str, float] | None, references: Sequence[str]
) -> float:
    """Return the mean log-probability of the right labels, after the bias."""
    labels = list(found[0].scores)
    offsets = np.array([0.0 if bias is None else bias[label] for label in labels])  # [L]
    scores = np.array([[p.scores[label] for label in labels] for p in found]) - offsets  # [N, L]
    if found[0].labels is not None:  # a decision for each label
        right = np.array([[label in split_labels(r) for label in labels] for r in references])
        return float(-np.logaddexp(0, np.where(right, -scores, scores)).sum(1).mean())
    scores = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    right = np.array([labels.index(reference) for reference in references])  # [N]
    return float(scores[np.arange(len(right)), right].mean())


def _predict(
    model: PromptModel,
    task: Task,
    instruction: str,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
) -> list[Prediction]:
    whole = _whole_task(model, task, template, shots, instruction)
    rows = few_shot_rows(task, template, shots, examples)
    return model.predict(rows, task=whole, batch_size=_BATCH, progress="Scoring hard prompts")


def _whole_task(
    model: PromptModel, task: Task, template: Template, shots: Sequence[Example], instruction: str
) -> Task:
    """Return the task with the whole prompt as its template; its rows are `few_shot_rows`."""
    plain = replace(task, template=template)
    shown = few_shot_task(model, task, template, shots) if shots else plain
    return replace(shown, template=Template(instruction + shown.template.text))
