"""Several labels on one text: sets of labels as text, in one canonical spelling.

Each label is a decision of its own: its words ask a question behind the text, and the model answers
with one of two words (`yes_no`). An example's labels, and a prediction, are one string, the labels
in the verbalizer's order joined by `;`, so that whatever compares answers compares sets.
"""

from collections.abc import Collection, Iterable, Sequence

from softhub.errors import TaskError

SEPARATOR = ";"
YES_NO = (" yes", " no")


def join_labels(labels: Collection[str], order: Sequence[str]) -> str:
    """Spell a set of labels.

    Args:
        labels: The labels that apply; may be none.
        order: All labels, in the verbalizer's order.
    """
    return SEPARATOR.join(label for label in order if label in labels)


def split_labels(text: str) -> tuple[str, ...]:
    """Read what `join_labels` wrote, or a cell of a data file.

    Args:
        text: Labels separated by `;`, with or without spaces around; blank stands for none.
    """
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return tuple(part for part in parts if part)


def check_separable(labels: Iterable[str]) -> None:
    """Refuse labels that could not be told apart once they are joined.

    Raises:
        TaskError: A label holds the separator, or white space around it.
    """
    for label in labels:
        if SEPARATOR in label or label != label.strip():
            raise TaskError(
                f"verbalizer: the label {label!r} holds {SEPARATOR!r} or white space at an end, "
                f"and {SEPARATOR!r} separates the labels of an example; rename it"
            )


def check_yes_no(words: Sequence[str]) -> None:
    """Refuse answers that could not be told apart.

    Raises:
        TaskError: There are not two different words.
    """
    if len(words) != 2 or not all(word.strip() == word.lstrip() != "" for word in words):
        raise TaskError(
            f'yes_no: found {list(words)!r:.80}; expected two words, e.g. [" yes", " no"] '
            f"(in quotes, a space before and none behind)"
        )
    if words[0].strip() == words[1].strip():
        raise TaskError(f"yes_no: found {words[0]!r} twice; expected two different words")
