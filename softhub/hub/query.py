"""A search query: its conditions and the order of the results; the same for all hubs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from softhub.adapter.manifest import PROMPT_TYPES
from softhub.errors import HubError, did_you_mean
from softhub.hub.records import AdapterInfo

SORTS = ("score", "date", "size", "name")
_CHOICES = {
    "sort": SORTS,
    "prompt_type": PROMPT_TYPES,
}
"""Fields of `Query` that have one of a few values."""
_ERRORS = frozenset({"loss", "nll", "error", "wer", "cer", "ter"})
"""Metrics of other tools' adapters of which less is better; softhub's own know their direction."""


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "fingerprint": (dict, "an object"),
    "min_score": ((int, float), "a number"),
    "limit": (int, "an integer"),
}
"""Fields of `Query` that are not texts: their type, and how a message names it."""


@dataclass(frozen=True)
class Query:
    """Conditions that must all hold; None or empty means any.

    Attributes:
        text: Words that must all occur in repository, task, base, message or the card's tags,
            datasets and languages.
        task: Name of the task, in any case.
        task_kind: `classification` or `generation`.
        prompt_type: `prompt` or `prefix`.
        base_model: Hub id of the base; without a namespace, the last part of it.
        fingerprint: Entries that the fingerprint of the base must not contradict; one that was
            recorded by an earlier version may lack some.
        tag: A word of the card's tags, or a tag of the repository.
        author: Owner of the repository.
        language: Language code.
        license: License.
        dataset: Id of a dataset.
        metric: Name of a metric that must have been recorded; `sort="score"` then sorts by it.
        min_score: Least value of that metric (greatest, where lower is better), or of the score.
        sort: `score` and `date` best and newest first, `size` and `name` in ascending order.
        limit: Maximum number of results.
    """

    text: str | None = None
    task: str | None = None
    task_kind: str | None = None
    prompt_type: str | None = None
    base_model: str | None = None
    fingerprint: dict[str, Any] | None = None
    tag: str | None = None
    author: str | None = None
    language: str | None = None
    license: str | None = None
    dataset: str | None = None
    metric: str | None = None
    min_score: float | None = None
    sort: str = "name"
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the types, order and limit.

        Raises:
            HubError: A condition has another type or a value that does not exist, or the limit is
                not positive.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                self._check_type(field.name, value)
        for name, known in _CHOICES.items():
            self._check_choice(name, known)
        if self.task_kind is not None:
            from softhub.tasks.task import KINDS  # which loads numpy

            self._check_choice("task_kind", KINDS)
        if self.limit is not None and self.limit < 1:
            raise HubError(f"limit is {self.limit}; expected at least 1")

    def _check_type(self, name: str, value: Any) -> None:
        expected, said = _TYPES.get(name, (str, "a string"))
        if not isinstance(value, expected) or isinstance(value, bool):
            raise HubError(f"{name} is {value!r}; expected {said}")
        if isinstance(value, str):
            object.__setattr__(self, name, _readable(value))

    def _check_choice(self, name: str, known: Sequence[str]) -> None:
        value = getattr(self, name)
        if value is not None and value not in known:
            raise HubError(f"{name} is {value!r}{did_you_mean(value, known)}")

    @classmethod
    def of(cls, **filters: Any) -> Query:
        """Make a query from a caller's keywords.

        Raises:
            HubError: A keyword is unknown; names the nearest one.
        """
        known = [field.name for field in fields(cls)]
        for name in filters:
            if name not in known:
                raise HubError(f"there is no filter {name!r}{did_you_mean(name, known)}")
        return cls(**filters)

    def matches(self, info: AdapterInfo) -> bool:
        """Return whether an adapter meets all conditions."""
        return (
            _same(self.task, info.task)
            and _same(self.task_kind, info.task_kind)
            and _same(self.prompt_type, info.prompt_type)
            and self._base_matches(info.base_model)
            and _same(self.author, info.author)
            and _same(self.license, info.license)
            and _among(self.tag, info.keywords + info.tags)
            and _among(self.language, info.language)
            and _among(self.dataset, info.datasets)
            and self._fingerprint_matches(info.fingerprint or {})
            and self._score_matches(info)
            and all(word in searched_text(info) for word in (self.text or "").lower().split())
        )

    def select(self, infos: Iterable[AdapterInfo]) -> list[AdapterInfo]:
        """Return the adapters that match, sorted and truncated to the limit."""
        return self.ordered(info for info in infos if self.matches(info))

    def ordered(self, infos: Iterable[AdapterInfo]) -> list[AdapterInfo]:
        """Return adapters in this query's order, ties by name, truncated to its limit."""
        found = sorted(infos, key=lambda info: info.repo_id)
        if self.sort == "score":
            found.sort(key=self._rank)
        elif self.sort == "date":
            found.sort(key=lambda info: info.date, reverse=True)
        elif self.sort == "size":
            found.sort(key=lambda info: info.total_bytes)
        return found[: self.limit]

    def score_of(self, info: AdapterInfo) -> tuple[str, float] | None:
        """Return the score that this query uses: the named metric, or the leading one."""
        if self.metric is None:
            return info.score
        tested_first = sorted(info.metrics, key=lambda metric: metric.split != "test")
        scores = ((m.name, m.value) for m in tested_first if _same(self.metric, m.name))
        return next(scores, None)

    def _rank(self, info: AdapterInfo) -> tuple[bool, float]:
        score = self.score_of(info)
        return (True, 0.0) if score is None else (False, -goodness(*score))

    def _base_matches(self, base_model: str | None) -> bool:
        if self.base_model is None or base_model is None:
            return self.base_model is None
        wanted, found = self.base_model.lower(), base_model.lower()
        return found == wanted or ("/" not in wanted and found.rsplit("/", 1)[-1] == wanted)

    def _fingerprint_matches(self, found: Any) -> bool:
        wanted = self.fingerprint or {}
        if not wanted.keys() & found.keys():
            return not wanted
        return _agree(wanted, found)

    def _score_matches(self, info: AdapterInfo) -> bool:
        if self.metric is None and self.min_score is None:
            return True
        score = self.score_of(info)
        if score is None or self.min_score is None:
            return score is not None
        name, value = score
        return goodness(name, value) >= goodness(name, self.min_score)


def searched_text(info: AdapterInfo) -> str:
    """Return all text of an adapter that a search for words considers, in lower case."""
    words = (info.repo_id, info.task, info.base_model, info.message, *info.keywords)
    return " ".join(filter(None, (*words, *info.datasets, *info.language))).lower()


def goodness(metric: str, value: float) -> float:
    """Return a number that is greater for a better score."""
    from softhub.metrics import METRICS  # which loads numpy: listing a hub does not need it

    if metric in METRICS:
        return METRICS[metric].goodness(value)
    return -value if metric.lower() in _ERRORS else value


def _readable(text: str) -> str:
    """Return a text of the command line as it was typed, independent of the locale."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


def _agree(wanted: Any, found: Any) -> bool:
    """Return whether two fingerprints are equal in what both have."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(_agree(wanted[key], found[key]) for key in wanted.keys() & found.keys())
    return bool(wanted == found)


def _same(wanted: str | None, found: str | None) -> bool:
    return wanted is None or (found is not None and wanted.lower() == found.lower())


def _among(wanted: str | None, found: tuple[str, ...]) -> bool:
    return wanted is None or wanted.lower() in {word.lower() for word in found}
