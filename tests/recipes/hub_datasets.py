"""What the cards of Hub datasets say they hold: features, splits and files, on a few made rows."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

Rows = list[dict[str, Any]]

_PUBMED_CONTEXT = "{name: context, sequence: [{name: contexts, dtype: string}, \
{name: labels, dtype: string}, {name: meshes, dtype: string}, \
{name: reasoning_required_pred, dtype: string}, {name: reasoning_free_pred, dtype: string}]}"


def hub_datasets() -> dict[str, dict[str, bytes]]:
    """Files of each dataset that a task in `recipes/tasks/hub` names, by its id."""
    return {
        "stanfordnlp/sst2": _with_card(
            ["{name: idx, dtype: int32}", "{name: sentence, dtype: string}", _classes("label")],
            {
                "train": _many(100, idx=1, sentence="a gorgeous film", label=[0, 1]),
                "validation": _many(4, idx=1, sentence="flat and slow", label=[0, 1]),
                "test": _many(2, idx=1, sentence="uneasy mishmash", label=[-1]),
            },
        ),
        "fancyzhx/amazon_polarity": _with_card(
            [_classes("label"), "{name: title, dtype: string}", "{name: content, dtype: string}"],
            {
                "train": _many(100, label=[0, 1], title="Five stars", content="Works well."),
                "test": _many(4, label=[0, 1], title="Oh no", content="It broke."),
            },
            config="amazon_polarity",
        ),
        "Yelp/yelp_review_full": _with_card(
            [
                _classes("label", "1 star", "2 star", "3 stars", "4 stars", "5 stars"),
                "{name: text, dtype: string}",
            ],
            {
                "train": _many(100, label=[0, 1, 2, 3, 4], text="dr. goldberg is fine."),
                "test": _many(5, label=[0, 1, 2, 3, 4], text="The soup was cold."),
            },
            config="yelp_review_full",
        ),
        "qiaojin/PubMedQA": _with_card(
            [
                "{name: pubid, dtype: int32}",
                "{name: question, dtype: string}",
                _PUBMED_CONTEXT,
                "{name: long_answer, dtype: string}",
                "{name: final_decision, dtype: string}",
            ],
            {"train": _pubmed_rows(510)},
            config="pqa_labeled",
        ),
        "openlifescienceai/medmcqa": _with_card(
            [
                *(f"{{name: {name}, dtype: string}}" for name in ("id", "question")),
                *(f"{{name: op{letter}, dtype: string}}" for letter in "abcd"),
                _classes("cop", "a", "b", "c", "d"),
                *(f"{{name: {name}, dtype: string}}" for name in ("choice_type", "exp")),
                *(f"{{name: {name}, dtype: string}}" for name in ("subject_name", "topic_name")),
            ],
            {
                "train": _exam_rows(100, [0, 1, 2, 3]),
                "validation": _exam_rows(4, [0, 1, 2, 3]),
                "test": _exam_rows(2, [-1]),
            },
        ),
        "Helsinki-NLP/opus-100": _with_card(
            ["{name: translation, dtype: {translation: {languages: [de, en]}}}"],
            {
                split: [
                    {"translation": {"de": f"Das ist Haus {number}.", "en": f"House {number}."}}
                    for number in range(8)
                ]
                for split in ("train", "validation", "test")
            },
            config="de-en",
        ),
        "bentrevett/multi30k": {
            f"{name}.jsonl": _lines(_many(8, en="A dog runs.", de="Ein Hund läuft."))
            for name in ("train", "val", "test")
        },
        "EdinburghNLP/xsum": {
            f"default/{split}/0000.parquet": _parquet(
                [
                    *_many(8, document="The river rose.\nIt rained.", summary="Floods.", id="3"),
                    {"document": "", "summary": "Empty, as a few are.", "id": "36"},
                ]
            )
            for split in ("train", "validation", "test")
        },
        "google-research-datasets/mbpp": _with_card(
            [
                "{name: task_id, dtype: int32}",
                *(f"{{name: {name}, dtype: string}}" for name in ("text", "code")),
                "{name: test_list, sequence: string}",
                "{name: test_setup_code, dtype: string}",
                "{name: challenge_test_list, sequence: string}",
            ],
            {split: _programs(8) for split in ("train", "test", "validation", "prompt")},
            config="full",
        ),
    }


def _many(count: int, **columns: Any) -> Rows:
    """Rows that differ: texts get a number, a list gives its items in turn."""
    return [
        {name: _varied(value, number) for name, value in columns.items()} for number in range(count)
    ]


def _varied(value: Any, number: int) -> Any:
    if isinstance(value, list):
        return value[number % len(value)]
    return f"{value} {number}" if isinstance(value, str) else value


def _pubmed_rows(count: int) -> Rows:
    context = {
        "contexts": ["Programmed cell death was studied.", "Leaves were collected."],
        "labels": ["BACKGROUND", "RESULTS"],
        "meshes": ["Alismataceae"],
        "reasoning_required_pred": ["y", "e", "s"],
        "reasoning_free_pred": ["y", "e", "s"],
    }
    columns = {"pubid": 21645374, "question": "Do mitochondria play a role?", "long_answer": "So."}
    rows = _many(count, **columns, final_decision=["yes", "no", "maybe"])
    return [{**row, "context": context} for row in rows]


def _exam_rows(count: int, answers: list[int]) -> Rows:
    options = {f"op{letter}": f"Option {letter}" for letter in "abcd"}
    rest = {"choice_type": "single", "exp": "Because.", "subject_name": "Anatomy", "topic_name": ""}
    return _many(count, id="e9", question="Which nerve is it?", **options, cop=answers, **rest)


def _programs(count: int) -> Rows:
    return [
        {
            "task_id": number,
            "text": f"Write a function to add {number}.",
            "code": f"def add(x):\r\n  return x + {number}",
            "test_list": [f"assert add(1) == {number + 1}", f"assert add(2) == {number + 2}"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number in range(count)
    ]


def _classes(name: str, *names: str) -> str:
    listed = ", ".join(
        f"'{number}': {label}" for number, label in enumerate(names or ("negative", "positive"))
    )
    return f"{{name: {name}, dtype: {{class_label: {{names: {{{listed}}}}}}}}}"


def _with_card(
    features: Sequence[str], splits: Mapping[str, Rows], config: str = "default"
) -> dict[str, bytes]:
    files = "\n".join(f"  - {{split: {split}, path: {split}.jsonl}}" for split in splits)
    listed = "\n".join(f"  - {feature}" for feature in features)
    card = (
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n"
        f"dataset_info:\n  config_name: {config}\n  features:\n{listed}\n---\n"
    )
    data = {f"{split}.jsonl": _lines(rows) for split, rows in splits.items()}
    return {"README.md": card.encode(), **data}


def _lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(rows: Rows) -> bytes:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
