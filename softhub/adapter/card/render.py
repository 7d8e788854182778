"""The card of a prompt: `README.md`, for people and for the Hub's filters.

Names, descriptions and templates are untrusted. In the front matter every text is a YAML
scalar on one line; in the body it is a code span, a fenced block, or escaped Markdown.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from softhub.adapter.card.markdown import block, cell, code, line, model_link
from softhub.adapter.card.metadata import dataset_of, front_matter
from softhub.adapter.card.terms import terms_of
from softhub.adapter.manifest import METHOD_OF_TYPE, Manifest, RecordedMetric
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.errors import TaskError
from softhub.tasks import Task

ADAPTER = "path/to/this/adapter"
"""Placeholder in the card's code for the folder of the adapter."""

_EXAMPLE = "Your text here."
_NEW_TOKENS = 32
# A rendered chat contains the control tokens that a tokenizer would otherwise add itself.
_CONTROL_TOKEN = re.compile(r"<[^<>\s]{1,30}>|\[INST\]")
_MAX_ITEMS = 16
_DATASET_KEYS = ("id", "name", "revision", "license", "source")


@dataclass(frozen=True)
class ScoreTable:
    """Scores on one split, one column per metric."""

    split: str
    examples: int
    metrics: tuple[RecordedMetric, ...]

    @property
    def baselines(self) -> list[str]:
        """Names of all baselines, in order of first mention."""
        return list(dict.fromkeys(name for metric in self.metrics for name in metric.baselines))

    @property
    def has_intervals(self) -> bool:
        """Whether any score has an interval."""
        return any(metric.low is not None and metric.high is not None for metric in self.metrics)


def render_card(manifest: Manifest, *, title: str | None = None) -> str:
    """Return the text of `README.md` for a prompt.

    Of the provenance, `dataset` (a mapping with `id`, `name`, `revision`, `license`, `source`, and
    the `examples` of each split) and all short values are listed; the rest is in `softhub.json`.

    Args:
        manifest: The prompt's manifest; a task that is missing or malformed is left out.
        title: Heading instead of the one made of the task and the base.

    Returns:
        Front matter and Markdown.
    """
    task = _task(manifest)
    name = (manifest.task or {}).get("name")
    known = {
        "manifest": manifest,
        "task": task,
        "seq2seq": manifest.task_type == "SEQ_2_SEQ_LM",
        "base_is_known": manifest.base_model != UNKNOWN_BASE,
    }
    snippets = known | _snippet_values(manifest, task)
    body = _render(
        "card.md.j2",
        **known,
        task_name=name,
        title=title or _title(manifest, name),
        score_tables=_score_tables(manifest.metrics),
        softhub_code=_render("softhub_code.py.j2", **snippets).strip(),
        peft_code=_render("peft_code.py.j2", **snippets).strip(),
        provenance=list(_provenance_lines(manifest.provenance)),
        terms=terms_of(manifest.base_model),
    )
    return f"---\n{front_matter(manifest)}---\n\n{body}"


def _snippet_values(manifest: Manifest, task: Task | None) -> dict[str, Any]:
    """Return the values for the code in the card, which readers run with their own folder."""
    generation = task.generation if task else {}
    return {
        "adapter": ADAPTER,
        "example": _EXAMPLE,
        "base_arguments": _base_arguments(manifest),
        "load_in": _load_in(manifest.base_quantization),
        "has_control_tokens": task is not None and _CONTROL_TOKEN.search(task.template.text),
        "max_new_tokens": int(generation.get("max_new_tokens", _NEW_TOKENS)),
    }


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("softhub.adapter.card", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        # Markdown, not HTML: every value goes through one of the filters below.
        autoescape=False,
    )
    environment.filters.update(
        line=line,
        code=code,
        cell=cell,
        block=block,
        model_link=model_link,
        word=lambda word: cell(json.dumps(word, ensure_ascii=False)),
        number=_number,
        score=_score,
        python=_python_literal,
    )
    return environment


def _task(manifest: Manifest) -> Task | None:
    try:
        return Task.from_record(manifest.task) if manifest.task else None
    except TaskError:
        return None


def _title(manifest: Manifest, task_name: str | None) -> str:
    base = manifest.base_model.split("/")[-1]
    target = "an unnamed base model" if manifest.base_model == UNKNOWN_BASE else base
    kind = METHOD_OF_TYPE[manifest.prompt_type]
    if task_name:
        return f"{task_name}: a {kind} for {target}"
    return f"{kind.capitalize()} for {target}"


def _base_arguments(manifest: Manifest) -> str:
    known = manifest.base_model != UNKNOWN_BASE
    name = _python_literal(manifest.base_model if known else "owner/name-of-the-base")
    revision = manifest.base_revision
    return f"{name}, revision={_python_literal(revision)}" if revision else name


def _load_in(quantization: str | None) -> str | None:
    """Return what `load_base` takes as `quantization`: `4bit` or `8bit`, if it was one of them."""
    bits = (quantization or "").removeprefix("bitsandbytes-")
    return bits if bits in ("4bit", "8bit") else None


def _python_literal(text: str) -> str:
    """Return a Python literal, in double quotes where no character must be escaped for it."""
    readable = text.replace("\n", "").isprintable()
    return json.dumps(text, ensure_ascii=False) if readable else repr(text)


def _score_tables(metrics: tuple[RecordedMetric, ...]) -> list[ScoreTable]:
    groups: dict[tuple[str, int], list[RecordedMetric]] = {}
    for metric in metrics:
        groups.setdefault((metric.split, metric.examples), []).append(metric)
    return [ScoreTable(split, count, tuple(group)) for (split, count), group in groups.items()]


def _score(metric: RecordedMetric) -> str:
    value = f"**{_number(metric.value)}**"
    if metric.low is None or metric.high is None:
        return value
    return f"{value} ({_number(metric.low)} to {_number(metric.high)})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _provenance_lines(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in sorted(provenance.items()):
        is_dataset = name == "dataset" and isinstance(value, Mapping)
        shown = _short(_dataset_summary(dataset_of(provenance)) if is_dataset else value)
        if shown:
            yield name, shown


def _dataset_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset's record with the size of each split instead of its details."""
    known = {key: record[key] for key in _DATASET_KEYS if record.get(key)}
    splits = {
        name: f"{details['examples']} examples"
        for name, details in record.items()
        if isinstance(details, Mapping) and "examples" in details
    }
    return {**known, **splits}


def _short(value: Any) -> str:
    """Return a scalar, or a flat mapping of scalars, as code spans; empty if it is longer."""
    if isinstance(value, Mapping):
        items = [(name, _short(item)) for name, item in value.items()]
        if len(items) > _MAX_ITEMS or any(isinstance(item, Mapping) for item in value.values()):
            return ""
        return ", ".join(f"{line(name)} {shown}" for name, shown in items if shown)
    if value is None or isinstance(value, list | tuple):
        return ""
    return code(value if isinstance(value, str) else json.dumps(value))
