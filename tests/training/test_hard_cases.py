"""Labels that begin one another, empty splits, texts beyond the context: told or counted."""

from dataclasses import replace

import pytest
import torch
from peft import PromptTuningConfig

from softhub.errors import DatasetError, SoftHubWarning, TaskError, TrainingError
from softhub.evaluation.calibrate import calibrate
from softhub.evaluation.evaluate import evaluate
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.tasks import Example, Splits, Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit

SINGLE = Task(
    name="topic",
    kind="classification",
    template=Template("Review: {text}\nAbout the"),
    verbalizer=Verbalizer.from_mapping({"a": " phone", "b": " phone price", "c": " mail"}),
)
SEVERAL = replace(
    SINGLE,
    multilabel=True,
    verbalizer=Verbalizer.from_mapping({"a": " phone", "b": " phone yes", "c": " mail"}),
)
LONG = "The sound is good, the screen is not great, the price is fair. " * 60


def arguments(folder):
    return PromptTrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        use_cpu=True,
        disable_tqdm=True,
    )


def rows(*labels, text="The price is fair."):
    return [Example(row={"text": f"{text} {n}"}, label=label) for n, label in enumerate(labels)]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_scores_of_labels_that_begin_one_another_are_of_whole_words(kind, tiny_base):
    """They are chances of different texts, so their sum stays below 1."""
    model = PromptModel(load_base(tiny_base(kind)))
    for found in model.predict(["It broke.", "Great value."], task=SINGLE):
        assert torch.tensor([*found.scores.values()]).exp().sum() < 1
    alone = replace(
        SINGLE, verbalizer=Verbalizer.from_mapping({"b": " phone price", "a": " phone"})
    )
    first, second = (model.predict(["It broke."], task=task)[0] for task in (SINGLE, alone))
    for label in ("a", "b"):
        assert first.scores[label] == pytest.approx(second.scores[label], abs=1e-4)
    for found in model.predict(["It broke."], task=SEVERAL):
        assert list(found.scores) == ["a", "b", "c"]


@pytest.mark.parametrize("task", [SINGLE, SEVERAL])
def test_empty_splits_are_told(task, tiny_base, tmp_path):
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)
    some = rows("a", "b", "c")
    for train, dev in ((some, []), ([], some)):
        with pytest.raises(TrainingError, match="no examples to train or evaluate on"):
            fit(base, task, config, Splits(train, dev, []), args=arguments(tmp_path))
    model = PromptModel(base)
    assert model.predict([], task=task) == []
    with pytest.raises(DatasetError, match="nothing to score"):
        evaluate(model, task, [])
    with pytest.raises(DatasetError, match="nothing to calibrate on"):
        calibrate(model, task, [])


@pytest.mark.filterwarnings("ignore:an interval over")
@pytest.mark.parametrize("task", [SINGLE, SEVERAL])
def test_texts_beyond_the_context_are_cut_and_counted(task, tiny_base, tmp_path):
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)
    data = [*rows("a", "b", "c", "a", "b"), *rows("a", "b", "c", text=LONG)]
    with pytest.warns(SoftHubWarning) as caught:
        splits = {"train": data, "dev": data[:5]}
        result = fit(base, task, config, splits, args=arguments(tmp_path))
    assert "3 of 8 train texts were too long and were truncated." in result.warnings
    assert any("3 of 8 train" in str(each.message) for each in caught)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="topic")
    with pytest.warns(SoftHubWarning, match="3 of 8 texts were too long and have been truncated"):
        found = evaluate(model, task, data, prompt="topic")
    assert all(each.best in ("a", "b", "c") or task.multilabel for each in found.details)


def test_a_template_that_fills_the_context_is_told(tiny_base):
    model = PromptModel(load_base(tiny_base("llama")))
    task = replace(SINGLE, template=Template(f"{LONG}{{text}}\nAbout the"))
    with pytest.raises(TaskError, match="its template alone has more than the 5"):
        model.predict(["Fine."], task=task)
