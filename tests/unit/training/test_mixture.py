"""`fit_mixture`: one prompt learns several tasks, and new tasks can start from it."""

from collections import Counter
from dataclasses import replace

import pytest
from peft import PromptTuningConfig

from softhub.base import load_base
from softhub.engine import PromptModel
from softhub.errors import TaskError
from softhub.pipeline import target_loss
from softhub.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template
from softhub.training import Part, PromptTrainingArguments, fit, fit_mixture
from softhub.training.mixture import MixtureSampler


@pytest.fixture(scope="module")
def summary():
    return Task(
        name="summary",
        kind="generation",
        template=Template("{text}\nIn a word:"),
        target_column="target",
        metrics=("chrf",),
    )


def texts(count, start=0):
    return [
        Example({"text": f"great value number {n}"}, target=" easy love")
        for n in range(start, start + count)
    ]


@pytest.fixture
def parts(toy_task, toy_examples, summary):
    return [
        Part(toy_task, toy_examples[:32], toy_examples[32:]),
        Part(summary, texts(12), texts(4, start=12)),
    ]


@pytest.fixture
def train(tiny_base, parts, tmp_path):
    """`train(kind, **training arguments)`: the base and what twelve steps on both tasks gave."""

    def run(kind="llama", *, mixture="equal", chosen=None, init="vocabulary", **options):
        base = load_base(tiny_base(kind))
        config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=5)
        settings = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 12,
            "learning_rate": 0.1,
            "max_restarts": 0,
            "eval_steps": 4,
            "save_steps": 4,
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        }
        args = PromptTrainingArguments(**settings)
        return base, fit_mixture(
            base, chosen or parts, config, args=args, init=init, mixture=mixture
        )

    return run


def dev(result):
    return [logs for logs in result.history if "eval_loss" in logs]


def test_every_task_is_learned_and_the_mean_chooses(train):
    _, still = train(learning_rate=1e-9, max_steps=4)
    _, result = train(max_steps=24)
    first, scores = dev(still)[0], dev(result)
    for name in ("eval_toy_loss", "eval_summary_loss"):
        assert min(logs[name] for logs in scores) < 0.97 * first[name]
    for logs in scores:
        mean = (logs["eval_toy_loss"] + logs["eval_summary_loss"]) / 2
        assert logs["eval_loss"] == pytest.approx(mean)
    assert result.best_score == min(logs["eval_loss"] for logs in scores)


def test_a_task_s_dev_loss_is_what_evaluation_finds(train, parts, tmp_path):
    """The reference: the engine, one row at a time, with the prompt as it was saved."""
    base, result = train()
    best = next(logs for logs in dev(result) if logs["step"] == result.best_step)
    model = PromptModel(base)
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="shared", task=parts[1].task)
    found = target_loss(model, parts[1].task, parts[1].dev, prompt="shared", batch_size=1)
    assert best["eval_summary_loss"] == pytest.approx(found.nll.value, abs=1e-4)


def test_a_mixture_of_one_is_that_task_alone(train, parts, tmp_path):
    """Same seed, rows and loss for an epoch: the prompt that `fit` gives, to rounding."""
    base, mixed = train(chosen=parts[:1], max_steps=4, output_dir=str(tmp_path / "mixed"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=5)
    args = PromptTrainingArguments(
        output_dir=str(tmp_path / "alone"),
        max_steps=4,
        learning_rate=0.1,
        max_restarts=0,
        eval_steps=4,
        save_steps=4,
        use_cpu=True,
        disable_tqdm=True,
    )
    part = parts[0]
    alone = fit(
        base, part.task, config, train=part.train, dev=part.dev, args=args, init="vocabulary"
    )
    assert mixed.prompt.vectors == pytest.approx(alone.prompt.vectors, abs=1e-6)
    assert dev(mixed)[0]["eval_toy_loss"] == pytest.approx(dev(alone)[0]["eval_loss"], abs=1e-6)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_other_bases_train_too(kind, train):
    _, result = train(kind, max_steps=4, learning_rate=0.001)
    assert len(dev(result)) == 1


def test_the_prompt_names_its_tasks_and_starts_another(train, toy_examples, toy_task, tmp_path):
    base, result = train()
    manifest = result.prompt.manifest
    assert manifest.task is None
    assert {name: part["weight"] for name, part in manifest.provenance["mixture"].items()} == {
        "toy": 0.5,
        "summary": 0.5,
    }
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=5)
    args = PromptTrainingArguments(
        output_dir=str(tmp_path / "own"),
        max_steps=1,
        learning_rate=1e-9,
        eval_steps=1,
        save_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    own = fit(
        base,
        replace(toy_task, name="own"),
        config,
        train=toy_examples[:8],
        dev=toy_examples[32:],
        args=args,
        init=result.prompt,
    )
    assert own.prompt.vectors == pytest.approx(result.prompt.vectors, abs=1e-6)


def test_batches_are_of_one_task_drawn_by_weight():
    lengths = [[5] * 40, [7] * 13]
    sampler = MixtureSampler(lengths, [0.25, 0.75], batch_size=4, seed=0)
    drawn = Counter()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert len(rows) == len(sampler)
        for start in range(0, len(rows), 4):
            (task,) = {int(row >= 40) for row in rows[start : start + 4]}
            drawn[task] += 1
    assert drawn[1] / drawn.total() == pytest.approx(0.75, abs=0.05)
    sampler.set_epoch(3)
    again = list(sampler)
    sampler.set_epoch(3)
    assert again == list(sampler)


def test_two_tasks_of_one_name_and_a_task_without_examples_are_refused(train, parts, toy_task):
    with pytest.raises(TaskError, match="Several tasks of a mixture are called toy"):
        train(chosen=[parts[0], parts[0]])
    with pytest.raises(TaskError, match="none of toy"):
        train(chosen=[Part(toy_task, [], parts[0].dev)])
