"""A toy task whose teachers say different things of different texts, and quick training."""

from dataclasses import replace

import pytest
from peft import PromptTuningConfig

from softhub.experiments.distillation import ModelTeacher, Teacher, distill
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics.label_sets import join_labels
from softhub.model.loading import load_base
from softhub.tasks import Example, Splits, Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments

LONG = Template("Is it good or not? Answer with one word.\n\nReview: {text}\nSentiment:")
WORDS = ["great", "easy", "love", "best", "value", "waste", "broke", "money", "nobody", "again"]
TASK = Task(
    name="toy",
    kind="classification",
    template=Template("Review: {text}\nSentiment:"),
    verbalizer=Verbalizer.from_mapping({"good": " great", "bad": [" waste", " not"]}),
    label_column="label",
    metrics=("accuracy", "macro_f1"),
    hard_templates=(Template("Review: {text}\nSentiment:"), LONG),
)
ECHO = Task(
    name="echo",
    kind="generation",
    template=Template("{text} ="),
    target_column="target",
    metrics=("chrf",),
    generation={"max_new_tokens": 3},
)


def texts(count):
    """Texts without labels."""
    rows = [" ".join(WORDS[(i + 3 * k) % 10] for k in range(1 + i % 4)) for i in range(count)]
    return [Example({"text": f"{row} {i}"}, group=str(i)) for i, row in enumerate(rows)]


def labelled(examples):
    """The same texts, with labels that are as good as any."""
    return [replace(e, label=("good", "bad")[i % 3 == 0]) for i, e in enumerate(examples)]


class Table(Teacher):
    """A teacher of one's own: it says of each text what a table says."""

    def __init__(self, task, examples, probabilities, source=()):
        super().__init__({"from": "table", **dict(source)})
        self.task = task
        rows = zip(examples, probabilities, strict=True)
        self.rows = {example.text: row for example, row in rows}

    def _classify(self, examples):
        return [self._said(self.rows[example.text]) for example in examples]

    def _said(self, row):
        labels = self.task.verbalizer.labels
        said = dict(zip(labels, row, strict=True))
        if not self.task.multilabel:
            return Prediction(max(labels, key=said.get), said, said)
        applying = tuple(label for label in labels if said[label] >= 0.5)
        return Prediction(join_labels(applying, labels), said, said, labels=applying)


@pytest.fixture(scope="module")
def model(tiny_base):
    return PromptModel(load_base(tiny_base("llama")))


@pytest.fixture
def teacher(model):
    """The base behind an instruction."""
    return ModelTeacher(model, replace(TASK, template=LONG))


@pytest.fixture
def run(tmp_path):
    """`run(model, teacher, task=…, **training arguments)`: distil 32 texts, dev on 12."""

    def run(
        model,
        teacher,
        task=TASK,
        *,
        tokens=6,
        init="vocabulary",
        resume=False,
        method=PromptTuningConfig,
        **options,
    ):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 12,
            "learning_rate": 0.1,
            "eval_steps": 4,
            "save_steps": 4,
            "eval_on_start": True,
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        }
        base = model.base
        return distill(
            base,
            task,
            method(task_type=base.task_type, num_virtual_tokens=tokens),
            Splits(texts(32), texts(44)[32:], []),
            teacher=teacher,
            args=PromptTrainingArguments(**settings),
            init=init,
            resume=resume,
        )

    return run
