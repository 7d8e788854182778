"""A verbalizer maps each label to words (Schick & Schütze 2021, arXiv 2001.07676).

The model scores the words after the rendered template, exactly as written. If the template ends
without white space, the space belongs to the word (`" positive"`), because that is how causal
tokenizers split running text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softhub.errors import TaskError
from softhub.tasks.plain_values import as_text
from softhub.terminal import counted

MAX_WORDS = 2_000
"""Maximum number of words of all labels: each is scored after every text."""

Labels = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names of labels, or a mapping of label to its word or words."""


@dataclass(frozen=True)
class Verbalizer:
    """Labels in a fixed order, each with one or several words.

    Attributes:
        words: Pairs of a label and its words (synonyms); the order is the order of the scores.
    """

    words: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        """Check that the words tell the labels apart.

        Raises:
            TaskError: If labels or words are missing, repeated, badly spaced or too many.
        """
        count = sum(len(words) for _, words in self.words)
        if max(count, len(self.words)) > MAX_WORDS:
            raise TaskError(
                f"the verbalizer has {len(self.words)} labels with {count} words; expected at most "
                f"{MAX_WORDS} words, because each is scored after every text. Remove some."
            )
        if len(self.words) < 2:
            raise TaskError(
                f"the verbalizer has {counted(len(self.words), 'label')}; expected at least two, "
                f"each with its words"
            )
        labels = self.labels
        for label in labels:
            if not label or labels.count(label) > 1:
                raise TaskError(
                    f"the verbalizer has the label {label!r} "
                    f"{'without a name' if not label else 'twice'}; give each label its own name"
                )
        self._check_words()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the scores."""
        return tuple(label for label, _ in self.words)

    @property
    def spaced(self) -> bool:
        """Whether the words begin with white space, so that the template must not end with it."""
        return self.words[0][1][0][0].isspace()

    def words_of(self, label: str) -> tuple[str, ...]:
        """Return the words of one label.

        Args:
            label: One of `labels`.

        Raises:
            TaskError: If there is no such label.
        """
        for known, words in self.words:
            if known == label:
                return words
        raise TaskError(f"no label {label!r}; the verbalizer has {', '.join(self.labels)}")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str | Sequence[str]]) -> "Verbalizer":
        """Build a verbalizer from labels and their words.

        Args:
            mapping: Label to one word or a sequence of words; the order is preserved.

        Raises:
            TaskError: If a label or word is not text, or the words cannot tell labels apart.
        """
        return cls(tuple(_entry(label, words) for label, words in mapping.items()))

    @classmethod
    def from_labels(cls, labels: Labels, *, space: bool = True, end: str = "") -> "Verbalizer":
        """Build a verbalizer from labels that may have no words yet.

        Args:
            labels: Names of labels, whose words are the names as running text has them
                (`very_good` → `" very good"`), or a mapping of label to words.
            space: Whether the words made from names begin with a space.
            end: What the words made from names end with, such as `?`.

        Raises:
            TaskError: If `labels` is neither, or the words cannot tell labels apart.
        """
        if isinstance(labels, Mapping):
            return cls.from_mapping(labels)
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            raise TaskError(
                f"found {labels!r:.80}; expected a list of labels, or a mapping of label to words"
            )
        lead = " " if space else ""
        words = words_for([as_text(label) for label in labels])
        return cls(tuple((label, (f"{lead}{word}{end}",)) for label, word in words))

    def to_record(self) -> list[dict[str, Any]]:
        """Return plain JSON values; a list, so that the order survives sorted keys."""
        return [{"label": label, "words": list(words)} for label, words in self.words]

    @classmethod
    def from_record(cls, record: Any) -> "Verbalizer":
        """Build a verbalizer from the output of `to_record`.

        Args:
            record: A list of `{"label": …, "words": […]}`.

        Raises:
            TaskError: If the record has another shape, or its words cannot tell labels apart.
        """
        if not isinstance(record, list):
            raise TaskError(f"the verbalizer's record is {record!r:.80}; expected a list of labels")
        for entry in record:
            if not isinstance(entry, Mapping) or set(entry) != {"label", "words"}:
                raise TaskError(
                    f"the verbalizer's record contains {entry!r:.80}; expected a label "
                    "and its words"
                )
        return cls(tuple(_entry(entry["label"], entry["words"]) for entry in record))

    def _check_words(self) -> None:
        owner: dict[str, str] = {}
        for label, words in self.words:
            if not words:
                raise TaskError(f"the label {label!r} has no words; give it at least one")
            for word in words:
                _check_word(label, word)
                # ' good' and 'good' differ only by their position in a text.
                bare = word.strip()
                if bare in owner:
                    raise TaskError(
                        f"the word {word!r} of the label {label!r} is already used for "
                        f"{owner[bare]!r}; each word must belong to one label only"
                    )
                owner[bare] = label
        self._check_spaces()

    def _check_spaces(self) -> None:
        words = [word for _, synonyms in self.words for word in synonyms]
        spaced = [word for word in words if word[0].isspace()]
        if spaced and len(spaced) < len(words):
            plain = next(word for word in words if not word[0].isspace())
            raise TaskError(
                f"{spaced[0]!r} begins with a space and {plain!r} does not; write all words "
                f"the same way, or their scores cannot be compared"
            )


def words_for(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return each label with its name as running text has it, or as it is where two would clash.

    Args:
        labels: Names of labels.
    """
    words = [_in_runningas_text(label) for label in labels]
    return list(zip(labels, words if len(set(words)) == len(words) else labels, strict=True))


def _in_runningas_text(label: str) -> str:
    text = re.sub(r"_+|(?<=[a-z])-(?=[a-z])", " ", label).strip() or label
    # One capital letter is a name (as of an answer, A to D), two or three may be an abbreviation.
    all_capitals = text.isupper() and len(text) > 3
    return text.lower() if all_capitals or text in ("True", "False") else text


def _check_word(label: str, word: str) -> None:
    if not word.strip():
        raise TaskError(f"the label {label!r} has an empty word; write the word or remove it")
    if word != word.rstrip():
        raise TaskError(
            f"the word {word!r} of the label {label!r} ends with white space; write "
            f"{word.rstrip()!r} (a space goes before a word, never after it)"
        )


def _entry(label: Any, words: Any) -> tuple[str, tuple[str, ...]]:
    label = as_text(label)
    if isinstance(words, str):
        return label, (words,)
    if not isinstance(words, Sequence):
        raise TaskError(
            f"the label {label!r} has {words!r:.80}; expected a word or a list of words, in quotes"
        )
    return label, tuple(as_text(word) for word in words)
