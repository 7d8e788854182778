"""`fit_mixture`: one prompt learns several tasks, and new tasks can start from it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig

from softhub.errors import TaskError
from softhub.evaluation.evaluate import evaluate
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Splits, Task, Template
from softhub.training import PromptTrainingArguments, fit, fit_mixture
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import choose_initialization, dev_loss
from softhub.training.mixture import MixtureSampler
from tests.references import target_nll


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
        (toy_task, Splits(toy_examples[:32], toy_examples[32:], [])),
        (summary, Splits(texts(12), texts(4, start=12), [])),
    ]


@pytest.fixture
def train(tiny_base, parts, tmp_path):
    """`train(kind, **training arguments)`: the base and what twelve steps on both tasks gave."""

    def run(
        kind="llama",
        *,
        method=PromptTuningConfig,
        mixture="equal",
        chosen=None,
        init="vocabulary",
        resume=False,
        **options,
    ):
        base = load_base(tiny_base(kind))
        config = method(task_type=base.task_type, num_virtual_tokens=5)
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
        tasks, data = zip(*(chosen or parts), strict=True)
        return base, fit_mixture(
            base, tasks, config, data, args=args, init=init, mixture=mixture, resume=resume
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


@pytest.mark.parametrize("steps", [{"max_steps": 12}, {"max_steps": "auto", "auto_max_steps": 12}])
@pytest.mark.parametrize("method", [PromptTuningConfig, PrefixTuningConfig])
def test_a_task_s_dev_loss_is_what_evaluation_finds(method, steps, train, parts, tmp_path):
    """The reference: the engine, one row at a time, with the prompt as it was saved."""
    base, result = train(method=method, **steps)
    best = next(logs for logs in dev(result) if logs["step"] == result.best_step)
    model = PromptModel(base)
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    task, splits = parts[1]
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="shared", task=task)
    found = target_nll(model, task, splits.dev, prompt="shared", batch_size=1)
    rounding = 5e-4 if method is PrefixTuningConfig else 0  # to bfloat16, after training
    assert best["eval_summary_loss"] == pytest.approx(found, abs=1e-4, rel=rounding)


def test_auto_takes_the_start_of_the_lowest_mean_dev_loss(tiny_base, train, parts):
    """The candidates are judged on each task by itself: their labels are of different kinds."""
    hard = Template("Say in one short word what it is: {text}\nIn a word:")
    task, splits = parts[1]
    chosen = [parts[0], (replace(task, hard_templates=(hard,)), splits)]
    base, result = train(init="auto", chosen=chosen, max_steps=1, learning_rate=1e-12)
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=5)
    encoded = [
        encode_task(base, task, part.train, part.dev, virtual_tokens=5) for task, part in chosen
    ]
    ids = base.tokenizer("Say in one short word what it is: ", add_special_tokens=False)
    starts = {
        name: choose_initialization(base, config, encoded, name, seed=42).vectors
        for name in ("vocabulary", "labels")
    }
    starts["hard prompt"] = base.embed(torch.tensor(ids["input_ids"][:5])).float()
    losses = {
        name: sum(dev_loss(base, one, vectors) for one in encoded)
        for name, vectors in starts.items()
    }
    best = min(losses, key=losses.get)
    assert torch.allclose(result.prompt.vectors, starts[best], atol=1e-6)


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
    task, splits = parts[0]
    alone = fit(base, task, config, splits, args=args, init="vocabulary")
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
        {"train": toy_examples[:8], "dev": toy_examples[32:]},
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


def tasks_of(sampler, first_of_second):
    """The task of each batch, which may have no row of another."""
    rows = list(sampler)
    drawn = []
    for start in range(0, len(rows), sampler.batch_size):
        (task,) = {int(r >= first_of_second) for r in rows[start : start + sampler.batch_size]}
        drawn.append(task)
    return drawn


def test_a_task_with_fewer_rows_than_a_batch_fills_it_with_its_own():
    sampler = MixtureSampler([[5] * 40, [7] * 3], [0.5, 0.5], batch_size=8, seed=0)
    drawn = Counter()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        drawn.update(tasks_of(sampler, 40))
    assert 0.3 < drawn[1] / drawn.total() < 0.7
    sampler.set_epoch(0)
    rows = Counter(row for row in sampler if row >= 40)
    assert set(rows) == {40, 41, 42} and max(rows.values()) - min(rows.values()) <= 1


def test_metrics_of_each_task_are_those_of_evaluation(train, parts, tmp_path):
    """The reference: the engine, with the prompt as it was saved."""
    base, result = train()
    best = next(logs for logs in dev(result) if logs["step"] == result.best_step)
    assert not any(key.startswith("eval_summary_") for key in best if not key.endswith("_loss"))
    model = PromptModel(base)
    task, splits = parts[0]
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="shared", task=task)
    found = evaluate(model, task, splits.dev, prompt="shared").metrics
    for name in ("accuracy", "macro_f1"):
        assert best[f"eval_toy_{name}"] == pytest.approx(found[name].value)


@pytest.fixture
def contrary(toy_task, toy_examples, parts):
    """Two tasks of which the first gets worse on dev the more it learns: its dev is wrong."""
    turned = [replace(e, label={"good": "bad", "bad": "good"}[e.label]) for e in toy_examples[32:]]
    return [(toy_task, Splits(toy_examples[:32], turned, [])), parts[1]]


def test_training_ends_when_the_mean_loss_no_longer_falls_and_stays_so(train, contrary):
    settings = {"early_stopping_patience": 1, "max_steps": 40, "eval_steps": 2, "save_steps": 2}
    _, result = train(chosen=contrary[:1], **settings)
    assert result.steps < 40
    losses = [logs["eval_loss"] for logs in dev(result)]
    assert losses[-1] >= min(losses[:-1])
    _, again = train(chosen=contrary[:1], **settings, resume=True)
    assert again.steps == result.steps


def test_two_tasks_of_one_name_and_a_task_without_examples_are_refused(train, parts, toy_task):
    with pytest.raises(TaskError, match="Several tasks of a mixture are called toy"):
        train(chosen=[parts[0], parts[0]])
    with pytest.raises(TaskError, match="none of toy"):
        train(chosen=[(toy_task, Splits([], parts[0][1].dev, []))])
