"""A toy task that a tiny base can learn, and `fit` with settings that take a second."""

import pytest
from peft import PromptTuningConfig

from softhub.model.loading import load_base
from softhub.tasks import Example, Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit

GOOD, BAD = "great easy love best value", "waste broke money nobody again"


def example(index):
    """Three of four are good: what even a tiny random base can learn from its prompt."""
    good = index % 4 != 0
    words = (GOOD if good else BAD).split()
    text = " ".join(words[(index + k) % 5] for k in range(1 + index % 3))
    return Example(row={"text": text}, label="good" if good else "bad", group=str(index))


@pytest.fixture(scope="session")
def toy_task():
    return Task(
        name="toy",
        kind="classification",
        template=Template("Review: {text}\nSentiment:"),
        verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": [" negative", " not"]}),
        label_column="label",
        metrics=("accuracy", "macro_f1"),
    )


@pytest.fixture(scope="session")
def toy_examples():
    return [example(index) for index in range(40)]


@pytest.fixture
def toy_fit(tiny_base, toy_task, toy_examples, tmp_path):
    """`toy_fit(kind, init=…, **training arguments)`: train on 32 examples, dev on 8."""

    def run(
        kind="llama",
        *,
        data=None,
        init="labels",
        tokens=6,
        task=None,
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
            "logging_steps": 1,
            "max_restarts": 0,  # what a tiny random base learns is no better than chance
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        }
        base = load_base(tiny_base(kind))
        config = method(task_type=base.task_type, num_virtual_tokens=tokens)
        return base, fit(
            base,
            task or toy_task,
            config,
            data or {"train": toy_examples[:32], "dev": toy_examples[32:]},
            args=PromptTrainingArguments(**settings),
            init=init,
            resume=resume,
        )

    return run
