"""`init="auto"`: the best start on dev, hard prompts and given prompts among the candidates."""

from dataclasses import replace

import pytest
import torch
from peft import PromptTuningConfig

from softhub.errors import IncompatiblePrompt, TrainingError
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template
from softhub.training import PromptTrainingArguments, fit
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import choose_initialization, dev_loss
from softhub.training.module import PromptTuningModule
from softhub.training.provenance import manifest_of
from softhub.training.restarts import loss_without_learning
from softhub.training.trainer import PromptTrainer
from tests.references import target_nll


@pytest.fixture
def encoded(tiny_base, toy_task, toy_examples):
    base = load_base(tiny_base("llama"))
    hard = (Template("Is it good or bad? Review: {text}\nSentiment:"), toy_task.template)
    task = replace(toy_task, hard_templates=hard)
    return base, encode_task(base, task, toy_examples[:32], toy_examples[32:], virtual_tokens=6)


def config(base, tokens=6, **options):
    return PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens, **options)


def test_auto_takes_the_start_of_the_lowest_dev_loss(encoded):
    base, task = encoded
    chosen = choose_initialization(base, config(base), [task], "auto", seed=0)
    losses = {
        name: dev_loss(
            base, task, choose_initialization(base, config(base), [task], name, seed=0).vectors
        )
        for name in ("vocabulary", "task", "labels")
    }
    hard = base.embed(torch.tensor(_instruction(base))).float()
    losses["hard prompt 'Is it good or bad? '"] = dev_loss(base, task, hard)
    assert chosen.name == min(losses, key=losses.get)
    assert chosen.dev_loss == pytest.approx(min(losses.values()), abs=1e-6)


def _instruction(base):
    ids = _ids(base, "Is it good or bad? ")
    return (ids * 6)[:6]


SAID, WORDS = "Is it good: positive, negative, not.", "positive, negative, not."


@pytest.mark.parametrize(
    ("extra", "description", "said"),
    [
        (3, "Is it good.", SAID),  # three tokens of the texts, then all that there is to say
        (0, "Is it good", SAID),
        (-1, "Is it good", WORDS),
        (0, "", WORDS),
    ],
)
def test_a_task_s_start_ends_with_what_the_task_is(extra, description, said, encoded):
    base, plain = encoded
    task = replace(plain, task=replace(plain.task, description=description))
    room = len(_ids(base, SAID if description else WORDS)) + extra
    ids = _ids(base, said)
    start = choose_initialization(base, config(base, room), [task], "task", seed=0)
    expected = base.embed(torch.tensor(ids)).float()
    torch.testing.assert_close(start.vectors[room - len(ids) :], expected)
    drawn = choose_initialization(base, config(base, room), [task], "vocabulary", seed=0)
    torch.testing.assert_close(start.vectors[: room - len(ids)], drawn.vectors[len(ids) :])


def test_a_task_s_start_that_is_too_short_for_its_words_takes_those_that_fit(encoded):
    base, task = encoded
    start = choose_initialization(base, config(base, 2), [task], "task", seed=0)
    first = torch.tensor(task.candidates.token_ids[:2])
    torch.testing.assert_close(start.vectors, base.embed(first).float())


def test_a_task_that_says_nothing_starts_from_its_texts(tiny_base):
    base = load_base(tiny_base("llama"))
    task = Task(
        name="echo", kind="generation", template=Template("Say: {text}\n"), target_column="target"
    )
    rows = [Example(row={"text": "yes no well"}, target=" yes", group="0")]
    learned = encode_task(base, task, rows, rows, virtual_tokens=4)
    starts = [
        choose_initialization(base, config(base, 4), [learned], init, seed=0)
        for init in ("task", "vocabulary")
    ]
    torch.testing.assert_close(starts[0].vectors, starts[1].vectors)


def _ids(base, text):
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_named_start_costs_no_comparison(encoded):
    base, task = encoded
    assert choose_initialization(base, config(base), [task], "labels", seed=0).dev_loss is None


def test_the_dev_loss_is_that_of_training(toy_fit, toy_task, toy_examples):
    """What the trainer reports for the very same vectors, before it has moved them."""
    base, result = toy_fit(max_steps=4, learning_rate=1e-12, eval_steps=4)
    scored = next(logs["eval_loss"] for logs in result.history if "eval_loss" in logs)
    rows = toy_examples[32:]
    learned = encode_task(base, toy_task, rows, rows, virtual_tokens=6)
    assert dev_loss(base, learned, result.prompt.vectors) == pytest.approx(scored, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_dev_loss_of_generation_is_by_target_token(kind, tiny_base, tmp_path):
    base = load_base(tiny_base(kind))
    task = Task(
        name="echo", kind="generation", template=Template("Say: {text}\n"), target_column="target"
    )
    rows = [
        Example(row={"text": word * n}, target=f" {word} again" * n, group=str(n))
        for n, word in enumerate(["yes ", "no ", "well "], start=1)
    ]
    learned = encode_task(base, task, rows, rows, virtual_tokens=4)
    vectors = choose_initialization(base, config(base, 4), [learned], "vocabulary", seed=0).vectors
    model = PromptModel(base)
    prompt = SoftPrompt(vectors, manifest_of(base, vectors, task=task, provenance={"seed": 0}))
    model.load_prompt(prompt, name="start")
    expected = target_nll(model, task, rows, prompt="start")
    assert dev_loss(base, learned, vectors) == pytest.approx(expected, rel=1e-4)
    for size in (1, 2, 8):  # a target has from two to eight tokens: batches must not count alike
        scored = _scored_in_training(base, task, rows, vectors, size, tmp_path)
        assert scored == pytest.approx(expected, rel=1e-4)


def _scored_in_training(base, task, rows, vectors, batch, folder):
    args = PromptTrainingArguments(
        output_dir=str(folder / str(batch)),
        per_device_eval_batch_size=batch,
        use_cpu=True,
        disable_tqdm=True,
    )
    learned = encode_task(base, task, rows, rows, virtual_tokens=4)
    module = PromptTuningModule(base, vectors, None)
    return PromptTrainer(module, task, args, learned.train, learned.dev).evaluate()["eval_loss"]


def test_what_nothing_learned_is_judged_by_is_all_of_dev(tiny_base):
    base = load_base(tiny_base("llama"))
    task = Task(
        name="echo", kind="generation", template=Template("Say: {text}\n"), target_column="target"
    )
    rows = [
        Example(row={"text": str(n)}, target=" yes" if n < 70 else " no good at all", group=str(n))
        for n in range(100)
    ]
    learned = encode_task(base, task, rows, rows, virtual_tokens=4)
    start = choose_initialization(base, config(base, 4), [learned], "vocabulary", seed=0)
    whole = dev_loss(base, learned, start.vectors, limit=None)
    assert (
        loss_without_learning(base, learned, start, 32)
        == whole
        != dev_loss(base, learned, start.vectors)
    )


def test_no_pass_over_dev_is_larger_than_asked_for(tiny_base, monkeypatch, tmp_path):
    base = load_base(tiny_base("llama"))
    task = Task(
        name="echo", kind="generation", template=Template("Say: {text}\n"), target_column="target"
    )
    rows = [Example(row={"text": str(n)}, target=" yes", group=str(n)) for n in range(8)]
    plain, sizes = PromptTuningModule.forward, []

    def forward(module, input_ids, *args, **kwargs):
        sizes.append(len(input_ids))
        return plain(module, input_ids, *args, **kwargs)

    monkeypatch.setattr(PromptTuningModule, "forward", forward)
    args = PromptTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        use_cpu=True,
        disable_tqdm=True,
    )
    data = {"train": rows, "dev": rows}
    candidate = fit(base, task, config(base, 4), data, args=args, init="random")
    sizes.clear()
    found = [candidate.prompt]
    again = {"args": args, "init": "auto", "init_candidates": found}
    fit(base, task, config(base, 4), data, **again)
    assert max(sizes) == 3


def test_given_prompts_are_candidates_too(toy_fit, toy_task, toy_examples, tmp_path):
    base, trained = toy_fit(max_steps=32, learning_rate=0.3)
    args = PromptTrainingArguments(
        output_dir=str(tmp_path / "again"),
        max_steps=2,
        eval_steps=2,
        save_steps=2,
        max_restarts=0,
        use_cpu=True,
        disable_tqdm=True,
    )
    result = fit(
        base,
        toy_task,
        config(base),
        {"train": toy_examples[:32], "dev": toy_examples[32:]},
        args=args,
        init="auto",
        init_candidates=[trained.prompt],
    )
    assert result.init == "candidate 1"
    parent = {"parent": trained.prompt.hashes()}
    assert result.prompt.manifest.provenance["init"] == parent


def test_a_candidate_of_another_length_is_refused(encoded, toy_fit):
    base, task = encoded
    other = toy_fit(tokens=3, max_steps=4)[1].prompt
    with pytest.raises(TrainingError, match=r"has shape \[3, "):
        choose_initialization(base, config(base), [task], "auto", [other], seed=0)


def test_the_rows_that_initializations_are_compared_on_do_not_depend_on_their_order(
    tiny_base, toy_task
):
    """Half of 128 rows, of which the first half has one label."""
    base = load_base(tiny_base("llama"))
    labels = ["good"] * 64 + ["bad"] * 64
    rows = [Example({"text": f"the price is {n}"}, label=label) for n, label in enumerate(labels)]
    both = [encode_task(base, toy_task, rows, dev, virtual_tokens=4) for dev in (rows, rows[::-1])]
    vectors = torch.randn(4, base.hidden_size, generator=torch.Generator().manual_seed(0))
    first, last = (dev_loss(base, one, vectors) for one in both)
    assert first == pytest.approx(last, rel=1e-6)
    assert first == pytest.approx(dev_loss(base, both[0], vectors, limit=None), rel=0.2)


@pytest.mark.parametrize("given", ["init", "candidate"])
def test_a_prompt_of_another_base_of_the_same_width_is_refused(given, encoded, toy_fit, tiny_base):
    _, task = encoded
    other = toy_fit(max_steps=4)[1].prompt
    base = load_base(tiny_base("qwen2"))
    init, candidates = (other, []) if given == "init" else ("labels", [other])
    with pytest.raises(IncompatiblePrompt, match="was made for"):
        choose_initialization(base, config(base), [task], init, candidates, seed=0)
