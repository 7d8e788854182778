"""Weights of labels in the training loss, against class imbalance.

Weights multiply the loss of an example by its label. They are scaled so that their mean over the
training examples is 1, and the loss is divided by the number of examples of the global batch. So
learning rates need no change, gradient accumulation and several processes give the same result, and
over an epoch the loss is the weighted mean of PyTorch's `CrossEntropyLoss(weight=…)`. (Dividing
each batch by its own sum of weights, as PyTorch does, would undo the weights in small batches: with
one example per batch they would cancel out.)
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from softhub.errors import TaskError, did_you_mean
from softhub.metrics.label_sets import split_labels
from softhub.tasks.dataset import Example

BALANCED = "balanced"
ClassWeights = str | Mapping[str, float]
"""`balanced`, or a positive number for each label."""


def check_class_weights(weights: ClassWeights, labels: Sequence[str]) -> None:
    """Check that the weights fit the labels.

    Args:
        weights: The weights of the task.
        labels: The verbalizer's labels.

    Raises:
        TaskError: The word is unknown, or a label has no weight or one that is not positive.
    """
    if isinstance(weights, str):
        if weights != BALANCED:
            raise TaskError(
                f"class_weights: found {weights!r}; expected {BALANCED!r}, or a weight for each "
                f"label"
            )
        return
    for label in weights:
        if label not in labels:
            raise TaskError(
                f"class_weights: the verbalizer has no label {label!r}{did_you_mean(label, labels)}"
            )
    for label in labels:
        weight = weights.get(label)
        if weight is None or not 0 < weight < float("inf"):
            found = "no weight" if weight is None else f"the weight {weight}"
            raise TaskError(
                f"class_weights: the label {label!r} has {found}; expected a positive number for "
                f"each label, or class_weights: {BALANCED}"
            )


def training_weights(
    weights: ClassWeights | None, labels: Sequence[str], examples: Sequence[Example]
) -> dict[str, float] | None:
    """Return the weight of each label in the loss.

    Args:
        weights: Weights of the labels; `balanced` is N / (number of labels * examples of the
            label), as in scikit-learn, where a label without examples counts as one with a single
            example.
        labels: The verbalizer's labels.
        examples: The training split.

    Returns:
        Label to weight, in the order of `labels`, with a mean of 1 over the examples; None
        without weights.

    Raises:
        TaskError: An example has soft labels.
    """
    if weights is None:
        return None
    _refuse_soft_labels(examples)
    counts = Counter(example.label for example in examples)
    if isinstance(weights, str):
        weights = {label: 1 / max(counts[label], 1) for label in labels}
    total = sum(weights[label] * counts[label] for label in labels)
    return {label: weights[label] * len(examples) / total for label in labels}


def positive_weights(
    weights: ClassWeights, labels: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    """Return the `pos_weight` of each label, as in PyTorch's `BCEWithLogitsLoss`; multi-label.

    Args:
        weights: Weights of the labels; `balanced` is examples without the label / examples with it.
        labels: The verbalizer's labels.
        examples: The training split.

    Returns:
        Label to weight, in the order of `labels`.

    Raises:
        TaskError: An example has soft labels.
    """
    _refuse_soft_labels(examples)
    if not isinstance(weights, str):
        return {label: float(weights[label]) for label in labels}
    counts = Counter(label for example in examples for label in split_labels(str(example.label)))
    size = len(examples)
    return {label: max(size - counts[label], 1) / max(counts[label], 1) for label in labels}


def _refuse_soft_labels(examples: Sequence[Example]) -> None:
    """Refuse examples whose loss, the divergence from probabilities, is not weighted by label."""
    if any(example.soft_label is not None for example in examples):
        raise TaskError(
            "class_weights: do not apply to examples with soft labels, whose probabilities weight "
            "the labels of each example; remove class_weights, or the soft labels"
        )
