"""Predictor: columns in, columns out, in whichever process calls it."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets.fingerprint import Hasher

from softhub import Predictor, PromptModel
from softhub.errors import ConfigError, TaskError
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from tests.prompts import PROMPTS, TEXTS, soft_prompt

Loaded = Callable[[str], BaseModel]


def called(predictor: Predictor, **columns: Sequence[object]) -> dict[str, list[Any]]:
    """Call it, with its answers as a file shows them: None for what there is none of."""
    found = predictor(columns)
    blank = {"error": [""], "predicted_label": [""]}
    return {
        name: [
            None if value != value or value in blank.get(name, []) else value
            for value in found[name]
        ]
        if name not in columns
        else [*found[name]]
        for name in found
    }


@pytest.fixture
def base(tiny_base: Callable[[str], Path]) -> Path:
    return tiny_base("llama")


@pytest.fixture
def prompts(loaded: Loaded) -> dict[str, SoftPrompt]:
    base = loaded("llama")
    return {
        name: soft_prompt(base, rows, task, seed=seed)
        for name, (task, rows, seed) in PROMPTS.items()
    }


@pytest.fixture
def mood(base: Path, prompts: dict[str, SoftPrompt]) -> Predictor:
    return Predictor(base, prompts["mood"])


def test_a_call_adds_the_answers_of_the_model_to_the_columns(
    mood: Predictor, model_of: Callable[[str], PromptModel]
) -> None:
    expected = model_of("llama").predict(TEXTS, prompt="mood")
    found = called(mood, id=range(5), text=TEXTS)
    assert list(found) == [
        *(
            "id",
            "text",
            "predicted_label",
            "abstained",
            "probabilities.good",
            "probabilities.bad",
            "error",
        )
    ]
    assert found["id"] == [0, 1, 2, 3, 4]
    assert found["predicted_label"] == [each.label for each in expected]
    good = [each.probabilities["good"] for each in expected]
    assert found["probabilities.good"] == pytest.approx(good, abs=1e-6)
    assert found["error"] == [None] * 5


def test_a_column_names_the_prompt_of_each_row(
    base: Path, prompts: dict[str, SoftPrompt], model_of: Callable[[str], PromptModel]
) -> None:
    names = ["mood", "topic", "topic", "mood", "mood"]
    del prompts["summary"]
    found = called(Predictor(base, prompts, prompt_column="task"), text=TEXTS, task=names)
    expected = model_of("llama").predict(TEXTS, prompt=names)
    assert found["predicted_label"] == [each.label for each in expected]
    assert [value is None for value in found["probabilities.good"]] == [
        name == "topic" for name in names
    ]
    assert found["probabilities.phone"][1] == pytest.approx(
        expected[1].probabilities["phone"], abs=1e-6
    )


def test_generated_texts(
    base: Path, prompts: dict[str, SoftPrompt], model_of: Callable[[str], PromptModel]
) -> None:
    predictor = Predictor(base, prompts["summary"], method="generate", max_new_tokens=4)
    found = called(predictor, text=TEXTS)
    expected = model_of("llama").generate(TEXTS, prompt="summary", max_new_tokens=4)
    assert found == {"text": TEXTS, "generated_text": expected, "error": [None] * 5}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("", "'text' is empty"),
        (" \n", "'text' is empty"),
        (None, "is empty (None)"),
        (float("nan"), "is empty (None)"),
        (pd.NA, "is empty (None)"),
        ({"a": 1}, "is a dict"),
        (b"Good.", "is a bytes"),
        ("half \ud83d", "surrogate"),
    ],
)
def test_a_bad_row_has_an_error_and_leaves_the_others(
    mood: Predictor, bad: object, reason: str
) -> None:
    texts = [*TEXTS[:2], bad, *TEXTS[3:]]
    found, whole = called(mood, text=texts), called(mood, text=TEXTS)
    assert reason in found["error"][2]
    assert found["predicted_label"][2] is found["probabilities.good"][2] is None
    for row in (0, 1, 3, 4):
        assert found["error"][row] is None
        assert found["predicted_label"][row] == whole["predicted_label"][row]
        assert found["probabilities.good"][row] == pytest.approx(
            whole["probabilities.good"][row], abs=1e-5
        )


def test_rows_without_a_known_prompt_have_an_error(
    base: Path, prompts: dict[str, SoftPrompt]
) -> None:
    del prompts["summary"]
    predictor = Predictor(base, prompts, prompt_column="task")
    found = called(predictor, text=TEXTS, task=["mood", "mod", None, 3, "topic"])
    assert [error is None for error in found["error"]] == [True, False, False, False, True]
    assert "'mod' is no prompt; expected one of mood, topic" in found["error"][1]


def test_a_missing_column_is_an_error_of_each_row_and_no_rows_are_fine(mood: Predictor) -> None:
    assert all("text" in error for error in called(mood, review=TEXTS)["error"])
    assert called(mood, text=[])["predicted_label"] == []


def test_it_travels_before_and_after_the_first_call(mood: Predictor) -> None:
    before = pickle.dumps(mood)
    expected = called(mood, text=TEXTS)
    after = pickle.dumps(mood)
    assert len(after) < 20_000  # the prompt, and no base
    assert Hasher.hash(pickle.loads(before)) == Hasher.hash(mood)  # datasets finds its cache
    for sent in (before, after):
        assert called(pickle.loads(sent), text=TEXTS) == expected


def test_another_process_loads_the_base_itself(mood: Predictor, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(pickle.dumps((mood, TEXTS)))
    code = (
        "import pickle, sys\n"
        "mood, texts = pickle.load(open(sys.argv[1], 'rb'))\n"
        "pickle.dump(mood({'text': texts}), open(sys.argv[2], 'wb'))\n"
    )
    subprocess.run([sys.executable, "-c", code, sent, back], check=True)
    assert pickle.loads(back.read_bytes()) == mood({"text": TEXTS})


def test_datasets_map(mood: Predictor) -> None:
    # The first batch has no error and the second no answer: the types of both must agree.
    texts = [*TEXTS[:3], "", " ", "", *TEXTS[3:]]
    rows = datasets.Dataset.from_dict({"id": [*range(8)], "text": texts})
    for given in (rows, rows.select([3, 4, 5, 0, 1, 2, 6, 7])):
        mapped = given.map(mood, batched=True, batch_size=3)
        expected = mood({"text": given["text"]})
        assert mapped["id"] == given["id"]
        for name in ("predicted_label", "abstained", "error"):
            assert [*mapped[name]] == expected[name]
        assert [*mapped["probabilities.good"]] == pytest.approx(
            expected["probabilities.good"], abs=1e-5, nan_ok=True
        )
        assert [error != "" for error in mapped["error"]] == [
            text.strip() == "" for text in given["text"]
        ]


def test_columns_of_numpy_and_pandas(mood: Predictor) -> None:
    expected = called(mood, text=TEXTS)["predicted_label"]
    assert called(mood, text=np.array(TEXTS, dtype=object))["predicted_label"] == expected
    assert called(mood, text=np.array(TEXTS))["predicted_label"] == expected
    frame = pd.DataFrame({"text": TEXTS})  # as a Spark function of mapInPandas has it
    assert [*pd.DataFrame(mood(frame.to_dict("list")))["predicted_label"]] == expected


@pytest.mark.parametrize("taken", ["predicted_label", "probabilities.good", "error"])
def test_a_column_of_the_input_is_not_replaced(mood: Predictor, taken: str) -> None:
    with pytest.raises(ConfigError, match="would replace; rename it"):
        mood({"text": TEXTS, taken: TEXTS})


def test_wrong_arguments_are_refused_at_once(base: Path, prompts: dict[str, SoftPrompt]) -> None:
    with pytest.raises(TaskError, match="requires a classification task"):
        Predictor(base, prompts["summary"])
    with pytest.raises(ConfigError, match="no prompt_column"):
        Predictor(base, prompts, method="generate")
    with pytest.raises(ConfigError, match="expected 'predict' or 'generate'"):
        Predictor(base, prompts["mood"], method="score")  # type: ignore[arg-type]


def test_an_option_that_is_wrong_for_all_rows_is_no_error_of_each(
    base: Path, prompts: dict[str, SoftPrompt]
) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        Predictor(base, prompts["mood"], batch_size=0)({"text": TEXTS})
