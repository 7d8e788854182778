"""Prompt ensembles: several prompts of one base classify each text, in the same batches.

Follows Lester et al. 2021 (arXiv 2104.08691, section 6), who use a majority vote; here the
probabilities are averaged, which avoids ties and gives a probability for each label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, mean
from typing import Any, overload

from softhub.errors import TaskError
from softhub.inference.engine import Prediction, PromptModel, Text
from softhub.inference.prediction import answered
from softhub.inference.requests import is_one, per_row
from softhub.tasks import Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision


@overload
def predict_ensemble(
    model: PromptModel, texts: Text, *, prompts: Sequence[str], **arguments: Any
) -> Prediction: ...


@overload
def predict_ensemble(
    model: PromptModel, texts: Iterable[Text], *, prompts: Sequence[str], **arguments: Any
) -> list[Prediction]: ...


def predict_ensemble(  # type: ignore[misc]  # the overloads leave out the keywords
    model: PromptModel,
    texts: Text | Iterable[Text],
    *,
    prompts: Sequence[str],
    batch_size: int = 32,
    progress: str | None = None,
) -> Prediction | list[Prediction]:
    """Classify texts by the mean probability over several prompts.

    Each prompt's probabilities have the temperature of its own task. Where the tasks differ in the
    threshold of multi-label answers, or in the confidence below which they abstain, the mean of the
    prompts' values applies to the mean probabilities.

    Args:
        model: The model in which the prompts are loaded.
        texts: Texts, or rows for the template; or one of these.
        prompts: Names of prompts for the same task, at least one.
        batch_size: Rows per batch; each text has one row per prompt.
        progress: Description of a progress bar on a terminal; None shows no bar.

    Returns:
        One prediction per text, or that of a single text; its scores are the prompts' mean scores.

    Raises:
        PromptNotLoaded: A prompt is not loaded.
        TaskError: There are no prompts, or they do not have the same labels.
    """
    if not prompts or isinstance(prompts, str):
        found = repr(prompts) if prompts else "no prompts"
        raise TaskError(f"Found {found}; an ensemble requires a list of loaded prompts.")
    pairs = [(text, name) for text, _ in per_row(texts, None) for name in prompts]
    rows: list[Any] = [text for text, _ in pairs]  # predict refuses conversations
    names = [name for _, name in pairs]
    votes = model.predict(rows, prompt=names, batch_size=batch_size, progress=progress)
    decision = _mean_decision([model.task_of(name) for name in prompts])
    size = len(prompts)
    starts = range(0, len(votes), size)
    means = [_mean(votes[start : start + size], prompts, decision) for start in starts]
    return means[0] if is_one(texts) else means


def _mean_decision(tasks: Sequence[Task | None]) -> Decision:
    decisions = [task.decision if task else ALWAYS_ANSWER for task in tasks]
    return Decision(
        threshold=mean(each.threshold for each in decisions),  # of equal values, exactly theirs
        abstain_below=mean(each.abstain_below for each in decisions),
    )


def _mean(votes: Sequence[Prediction], prompts: Sequence[str], decision: Decision) -> Prediction:
    labels = list(votes[0].probabilities)
    if any(list(vote.probabilities) != labels for vote in votes):
        raise TaskError(f"The prompts {', '.join(prompts)} do not have the same labels.")
    probabilities = {label: fmean(vote.probabilities[label] for vote in votes) for label in labels}
    scores = {label: fmean(vote.scores[label] for vote in votes) for label in labels}
    multilabel = votes[0].labels is not None
    return answered(probabilities, scores, decision, multilabel=multilabel)
