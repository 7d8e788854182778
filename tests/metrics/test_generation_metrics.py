"""Metrics of generated texts and code: each the library's own number, for any resample too."""

import random
import warnings

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from softhub.errors import TaskError
from softhub.metrics import compute, find_metric
from softhub.metrics.intervals import bootstrap_interval

WORDS = [
    "The",
    "cat",
    ",",
    "dog",
    "sat",
    "on",
    "mat",
    ".",
    "Das",
    "größte",
    "Haus",
    "ist",
    "blau",
    "?",
    "l'eau",
    "3.5",
    "%",
]


def corpus(seed: int, size: int = 12) -> tuple[list[str], list[str]]:
    """Predictions and references that share some of their words; some predictions are empty."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(size)]
    predictions = [
        " ".join(word if draw.random() < 0.7 else draw.choice(WORDS) for word in text.split())
        for text in references
    ]
    predictions[draw.randrange(size)] = ""
    return predictions, references


def library_score(name: str, predictions: list[str], references: list[str]) -> float:
    if name == "sacrebleu":
        return corpus_bleu(predictions, [references]).score / 100
    if name == "chrf":
        return corpus_chrf(predictions, [references]).score / 100
    scorer = RougeScorer([name])
    pairs = zip(references, predictions, strict=True)
    return float(np.mean([scorer.score(*pair)[name].fmeasure for pair in pairs]))


LIBRARIES = ["sacrebleu", "chrf", "rouge1", "rouge2", "rougeL"]


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("seed", range(8))
def test_scores_are_the_library_s_own(name: str, seed: int) -> None:
    predictions, references = corpus(seed)
    expected = library_score(name, predictions, references)
    assert compute(name, predictions, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (["", ""], ["a cat", "a dog"]),
        (["x"], ["y"]),
        (["cat"], ["cat"]),  # no pair of words at all: BLEU is 0 by sacreBLEU's rule
        (["the cat sat"], ["the cat sat"]),
        (["a b c d e f"], ["a b c x e f"]),  # no four words in a row: smoothed
        (["猫が座った"], ["猫が座る"]),
    ],
)
def test_extremes_are_the_library_s_too(
    name: str, predictions: list[str], references: list[str]
) -> None:
    expected = library_score(name, predictions, references)
    assert compute(name, predictions, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", LIBRARIES)
def test_resamples_score_like_repeated_examples(name: str) -> None:
    predictions, references = corpus(3)
    weights = np.random.default_rng(0).integers(0, 4, size=(5, len(references)))
    metric = find_metric(name)
    scores = metric.score(weights @ metric.statistics(predictions, references))
    for row, score in zip(weights, scores, strict=True):
        repeated = [
            [text for text, times in zip(texts, row, strict=True) for _ in range(times)]
            for texts in (predictions, references)
        ]
        assert score == pytest.approx(library_score(name, *repeated), abs=1e-9)


@pytest.mark.parametrize("name", LIBRARIES)
def test_intervals_hold_the_score(name: str) -> None:
    predictions, references = corpus(5, size=40)
    interval = bootstrap_interval(predictions, references, name)
    assert interval.low < interval.value < interval.high
    assert interval.value == compute(name, predictions, references)


@pytest.mark.parametrize("name", [*LIBRARIES, "exact_match", "valid_python"])
def test_an_answer_that_is_nothing_scores_nothing(name: str) -> None:
    assert compute(name, ["", " \n"], ["x = 1 + 2 + 3", "y = x"]) == 0


def test_valid_python_parses() -> None:
    programs = {
        "def f(x):\n    return x\n": True,
        "return 1": True,  # a body is judged with its signature before it, if the task names one
        "x = = 1": False,
        "    return 1": False,
        "print 'old'": False,
        "a\0b": False,
        "": False,
        "(" * 9_000 + ")" * 9_000: False,
        "-" * 19_000 + "1": False,
        "x = 1\n" * 5_000: False,  # no answer is that long
        "x = '\\d'": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [compute("valid_python", [program], ["any"]) for program in programs]
    assert found == [float(right) for right in programs.values()]


@pytest.mark.parametrize("body", ['"""Sum."""', "pass", "...", '"""Sum."""\n    pass', "1"])
@pytest.mark.parametrize("begin", ["def f(x):", "async def f(x):", "class A:\n  def f(self):"])
def test_a_function_that_does_nothing_is_no_valid_answer(begin: str, body: str) -> None:
    """A base that repeats the signature and its docstring has answered nothing."""
    empty = f"{begin}\n    {body}\n"
    answered = f"{begin}\n    {body}\n    return 0\n"
    assert compute("valid_python", [empty], ["any"]) == 0
    assert compute("valid_python", [answered], ["any"]) == 1
    assert compute("valid_python", [f"y = 1\n{empty}"], ["any"]) == 0


@pytest.mark.parametrize("program", ["# to do\n", '"""Sums."""\n', "pass", "..."])
def test_a_program_that_does_nothing_is_no_valid_answer(program: str) -> None:
    assert compute("valid_python", [program], ["any"]) == 0


def test_a_class_may_be_empty() -> None:
    assert compute("valid_python", ["class Wrong(Exception):\n    pass\n"], ["any"]) == 1


def test_pass_at_1_judges_outcomes_and_refuses_texts() -> None:
    outcomes = ["passed", "failed", "timeout", "exited"]
    assert compute("pass_at_1", outcomes, ["passed"] * 4) == 0.25
    with pytest.raises(TaskError, match=r"found the text 'return 1'.*run_code=True"):
        compute("pass_at_1", ["return 1"], ["passed"])
