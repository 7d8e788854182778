"""What the evaluation would refuse after training is refused before it, with the row or the key."""

from dataclasses import replace

import pytest

from softhub.errors import ConfigError, DatasetError, TaskError
from softhub.evaluation.evaluate import select_metrics
from softhub.evaluation.preflight import check_evaluation
from softhub.tasks import Splits, Task

LONG = "word " * 600  # more than the context of 512 tokens
PAIR = Task(
    name="pair",
    template="Premise: {premise}\nHypothesis: {text}\nLabel:",
    labels=["yes", "no"],
    hard_templates=["{premise} {text} Is it true?"],
)
WRITE = Task(
    name="write",
    template="Text: {text}\nSummary:\n",
    generation={"max_new_tokens": 4},
    metrics=("chrf", "perplexity"),
)


@pytest.fixture
def check(loaded):
    def run(task, dev=(), test=(), tokens=4):
        data = Splits([], *(task.to_examples(rows) for rows in (dev, test)))
        metrics = select_metrics(task, run_code=False)
        check_evaluation(loaded("llama"), task, data, metrics, virtual_tokens=tokens)

    return run


def test_texts_that_are_only_truncated_are_fine(check):
    pairs = [{"premise": "a day", "text": LONG, "label": "yes"}]
    check(PAIR, pairs, pairs)
    texts = [{"text": LONG, "target": "a day"}]
    check(WRITE, texts, texts)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_row_that_does_not_fit_without_its_text_is_named(check, split):
    rows = [
        {"premise": "a day", "text": "fair", "label": "yes"},
        {"premise": LONG, "text": "fair", "label": "no"},
    ]
    with pytest.raises(DatasetError, match=r"^rows\[1\]: .* shorten its 'premise', or") as error:
        check(PAIR, **{split: rows})
    assert "template" not in str(error.value) and "virtual" not in str(error.value)


def test_a_reference_text_that_does_not_fit_is_named_if_a_metric_scores_it(check):
    rows = [{"text": "a day", "target": "fair"}, {"text": "a day", "target": LONG}]
    with pytest.raises(DatasetError, match=r"^rows\[1\]: .* and 508 fit; shorten its 'target', or"):
        check(WRITE, test=rows)
    check(replace(WRITE, metrics=("chrf",)), test=rows)


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (replace(WRITE, generation={"max_new_tokens": 4000}), TaskError, "max_new_tokens"),
        (replace(WRITE, generation={"do_sample": True, "num_beams": 2}), ConfigError, "num_beams"),
        (replace(PAIR, hard_templates=[f"{LONG} {{text}}"]), TaskError, "pair: hard_templates: "),
    ],
)
def test_what_no_row_fits_is_named(check, task, error, words):
    with pytest.raises(error, match=words):
        check(task)


def test_rows_that_differ_in_their_text_only_are_encoded_once(check, loaded, monkeypatch):
    encoder, encoded = loaded("llama").encoder, []
    original = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *a, **k: encoded.append(a) or original(*a, **k))
    rows = [{"premise": "a day", "text": f"fair {n}", "label": "yes"} for n in range(100)]
    check(PAIR, rows, rows)
    assert len(encoded) < 8


def test_a_task_that_no_adapter_can_hold_is_refused(check):
    with pytest.raises(TaskError, match=r"the task pair cannot be saved .* control characters"):
        check(replace(PAIR, description="don\x92t know"))
