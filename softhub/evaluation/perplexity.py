"""Domain adaptation: how well a base foresees the texts of a domain, with and without a prompt.

The end of a text does not count: any texts teach a prompt where to stop, whatever they speak of.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from softhub.evaluation.evaluate import Evaluation, references_of, target_loss
from softhub.inference.engine import PromptModel
from softhub.tasks import Example, Task, Template


def evaluate_perplexity(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 8,
) -> Evaluation:
    """Perplexity per token of the reference texts; lower is better.

    Args:
        model: The engine.
        task: A generation task.
        examples: Texts with their references.
        prompt: Name of a loaded prompt; None judges the bare base with the task's template.
        batch_size: Examples in one pass; small, because every token of a text is judged.

    Returns:
        The evaluation, with no predictions and `perplexity` for its metric.
    """
    start = time.perf_counter()
    loss = target_loss(model, task, examples, prompt=prompt, batch_size=batch_size, count_end=False)
    seconds = time.perf_counter() - start
    references = tuple(references_of(task, examples))
    return Evaluation({"perplexity": loss.perplexity}, (), references, seconds)


def compare_perplexity(
    model: PromptModel,
    task: Task,
    dev: Sequence[Example],
    test: Sequence[Example],
    *,
    prompt: str,
) -> tuple[list[Template], dict[str, Evaluation], Evaluation]:
    """Perplexity of test texts with a prompt, and without it behind the likeliest hard template.

    Args:
        model: The engine.
        task: A generation task.
        dev: Examples that choose the hard template.
        test: Examples that are judged.
        prompt: Name of a loaded prompt.

    Returns:
        The template that was chosen, the baseline by its name, and the prompt's evaluation.
    """
    template = likeliest_template(model, task, dev)
    plain = evaluate_perplexity(model, replace(task, template=template), test)
    soft = evaluate_perplexity(model, task, test, prompt=prompt)
    return [template], {"zero-shot": plain}, soft


def likeliest_template(
    model: PromptModel, task: Task, dev: Sequence[Example], *, batch_size: int = 8
) -> Template:
    """The hard template before which the bare base foresees the dev texts best."""

    def perplexity(template: Template) -> float:
        plain = replace(task, template=template)
        scores = evaluate_perplexity(model, plain, dev, batch_size=batch_size)
        return scores.metrics["perplexity"].value

    return min(task.hard_templates or (task.template,), key=perplexity)
