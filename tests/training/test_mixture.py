"""`fit_mixture`: one prompt learns several tasks, and new tasks can start from it."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from peft import PromptTuningConfig

from softhub.errors import TaskError, TrainingError
from softhub.evaluation.evaluate import evaluate, target_loss
from softhub.inference.engine import PromptModel
from softhub.model.base import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Splits, Task, Template
from softhub.training import PromptTrainingArguments, fit, fit_mixture
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import choose_initialization, dev_loss
from softhub.training.mixture import MixtureSampler
from softhub.training.patience import progress_of


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
        kind="llama", *, mixture="equal", chosen=None, init="vocabulary", resume=False, **options
    ):
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


def test_a_task_s_dev_loss_is_what_evaluation_finds(train, parts, tmp_path):
    """The reference: the engine, one row at a time, with the prompt as it was saved."""
    base, result = train()
    best = next(logs for logs in dev(result) if logs["step"] == result.best_step)
    model = PromptModel(base)
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    task, splits = parts[1]
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="shared", task=task)
    found = target_loss(model, task, splits.dev, prompt="shared", batch_size=1)
    assert best["eval_summary_loss"] == pytest.approx(found.nll.value, abs=1e-4)


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


def test_what_a_stopped_task_leaves_goes_to_the_others():
    def sampler(draws):
        return MixtureSampler([[5] * 200, [7] * 200, [9] * 200], [0.6, 0.3, 0.1], 2, 0, draws)

    whole = list(sampler(lambda task, step: True))
    cut = list(sampler(lambda task, step: task > 0 or step < 100))
    assert cut[:200] == whole[:200]  # what was drawn before does not change
    tasks = Counter(row // 200 for row in cut[200:])
    assert tasks[0] == 0
    assert tasks[1] / tasks.total() == pytest.approx(0.75, abs=0.08)
    late = sampler(lambda task, step: task > 0 or step < 400)
    late.set_epoch(1)  # its steps are 300 to 599
    assert {row // 200 for row in list(late)[200:]} == {1, 2}
    assert 0 in {row // 200 for row in list(late)[:200]}


def test_where_no_task_is_left_the_sampler_only_looks_ahead():
    sampler = MixtureSampler([[5] * 8, [7] * 8], [0.5, 0.5], 4, 0, lambda task, step: False)
    assert len(list(sampler)) == len(sampler)


def logged(losses, name="toy"):
    return [{"step": 4 * i, f"eval_{name}_loss": loss} for i, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "patience", "best_step", "stopped"),
    [
        ([3, 2, 1], 1, 12, None),
        ([3, 2, 2, 1], 1, 16, 12),  # equal is no better; what others bring it later is told
        ([3, 2, 4, 1, 5, 6], 2, 16, 24),
        ([3, 4, 5, 6], 0, 4, None),
        ([3, 4], 2, 4, None),
    ],
)
def test_a_task_stops_when_its_loss_has_not_fallen(losses, patience, best_step, stopped):
    found = progress_of("toy", [{"step": 1, "loss": 9.0}, *logged(losses)], patience)
    assert (found.best_step, found.stopped_step) == (best_step, stopped)
    assert progress_of("other", logged(losses), patience) is None


def test_a_task_s_progress_is_its_own_where_names_begin_alike():
    history = [{"step": 4, "eval_a_loss": 1.0, "eval_a_b_loss": 2.0, "eval_a_b_accuracy": 0.5}]
    assert progress_of("a", history).metrics == {}
    assert progress_of("a_b", history).metrics == {"accuracy": 0.5}


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
    losses = [logs["eval_toy_loss"] for logs in dev(result)]
    assert result.tasks["toy"].best_loss == min(losses)
    assert result.tasks["toy"].best_step == dev(result)[losses.index(min(losses))]["step"]
    assert set(result.tasks["toy"].metrics) == {"accuracy", "macro_f1"}
    assert result.tasks["summary"].metrics == {}


@pytest.fixture
def contrary(toy_task, toy_examples, parts):
    """Two tasks of which the first gets worse on dev the more it learns: its dev is wrong."""
    turned = [replace(e, label={"good": "bad", "bad": "good"}[e.label]) for e in toy_examples[32:]]
    return [(toy_task, Splits(toy_examples[:32], turned, [])), parts[1]]


@pytest.mark.slow
def test_a_task_that_gets_no_better_is_drawn_no_more_also_after_a_break(train, contrary, tmp_path):
    settings = {
        "chosen": contrary,
        "early_stopping_patience": 1,
        "max_steps": 16,
        "eval_steps": 2,
        "save_steps": 2,
        "save_total_limit": None,
        "load_best_model_at_end": False,
    }
    _, whole = train(**settings)
    stopped = whole.tasks["toy"].stopped_step
    assert stopped is not None and stopped < 12
    assert whole.prompt.manifest.provenance["mixture"]["toy"]["stopped_step"] == stopped
    last = dev(whole)[-1]["step"]
    assert last == 16 or whole.tasks["summary"].stopped_step == last
    assert last > stopped
    _, free = train(**{**settings, "early_stopping_patience": 0}, output_dir=str(tmp_path / "all"))
    assert not torch.allclose(free.prompt.vectors, whole.prompt.vectors, atol=1e-3)
    for step in (stopped - 2, stopped):  # before it stops, and with the next batch drawn ahead
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "run" / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        _, again = train(**settings, output_dir=str(folder), resume=True)
        assert again.tasks == whole.tasks
        assert again.prompt.vectors == pytest.approx(whole.prompt.vectors, abs=1e-6)


def test_training_ends_when_all_tasks_have_stopped_and_stays_so(train, contrary):
    settings = {
        "chosen": contrary[:1],
        "early_stopping_patience": 1,
        "max_steps": 40,
        "eval_steps": 2,
        "save_steps": 2,
    }
    _, result = train(**settings)
    assert result.steps == result.tasks["toy"].stopped_step < 40
    _, again = train(**settings, resume=True)
    assert (again.steps, again.tasks) == (result.steps, result.tasks)


def test_a_range_test_of_several_tasks_is_refused(train):
    with pytest.raises(TrainingError, match=r"learning_rate_rule='auto'.*Use 'scaled', or pass"):
        train(learning_rate=None, learning_rate_rule="auto")


def test_two_tasks_of_one_name_and_a_task_without_examples_are_refused(train, parts, toy_task):
    with pytest.raises(TaskError, match="Several tasks of a mixture are called toy"):
        train(chosen=[parts[0], parts[0]])
    with pytest.raises(TaskError, match="none of toy"):
        train(chosen=[(toy_task, Splits([], parts[0][1].dev, []))])
