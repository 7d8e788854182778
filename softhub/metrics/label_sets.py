"""Multi-label classification: sets of labels as text, in one canonical form.

Each label is a separate decision: its words ask a question after the text, which the model
answers with one of two words (`yes_no`). The labels of an example, and of a prediction, are one
string, in the verbalizer's order and joined by `;`, so that comparing strings compares sets.
"""

from collections.abc import Collection, Iterable, Sequence

from softhub.errors import TaskError

SEPARATOR = ";"
YES_NO = (" yes", " no")


def join_labels(labels: Collection[str], order: Sequence[str]) -> str:
    """Write a set of labels as text.

    Args:
        labels: The labels that apply; may be empty.
        order: All labels, in the verbalizer's order.
    """
    return SEPARATOR.join(label for label in order if label in labels)


def split_labels(text: str) -> tuple[str, ...]:
    """Read what `join_labels` wrote, or a cell of a data file.

    Args:
        text: Labels separated by `;`, with or without spaces around them; may be blank.
    """
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return tuple(part for part in parts if part)


def check_separable(labels: Iterable[str]) -> None:
    """Check that labels are not ambiguous when joined.

    Raises:
        TaskError: A label contains the separator, or has white space at an end.
    """
    for label in labels:
        if SEPARATOR in label or label != label.strip():
            raise TaskError(
                f"verbalizer: the label {label!r} contains {SEPARATOR!r} or has white space at an "
                f"end, and {SEPARATOR!r} separates the labels of an example; rename it"
            )


def check_yes_no(words: Sequence[str]) -> None:
    """Check that the two answers are not ambiguous.

    Raises:
        TaskError: These are not two different words.
    """
    if len(words) != 2 or not all(word.strip() == word.lstrip() != "" for word in words):
        raise TaskError(
            f'yes_no: found {list(words)!r:.80}; expected two words, e.g. [" yes", " no"] '
            f"(in quotes, with a space before each word and none after it)"
        )
    if words[0].strip() == words[1].strip():
        raise TaskError(f"yes_no: found {words[0]!r} twice; expected two different words")
