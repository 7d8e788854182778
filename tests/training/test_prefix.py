"""Training prefixes: they start as a prompt, learn in each layer's unit, and are stored small."""

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig
from safetensors.torch import load_file

from softhub.adapter.layout import CONFIG, WEIGHTS
from softhub.adapter.validation import check_folder
from softhub.errors import (
    BaseModelError,
    IncompatiblePrompt,
    TrainingError,
    TrainingInterrupted,
)
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prefix import prefix_shape, units_of, vectors_of_prompt
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template
from softhub.training import PromptTrainingArguments, fit, fit_mixture, fit_tasks
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import choose_initialization, dev_loss, initial_vectors
from softhub.training.module import PromptTuningModule
from softhub.training.rounding import _next_tokens, round_prefix
from tests.families import WINDOW, family_base
from tests.prompts import MOOD
from tests.prompts import prefix as random_prefix
from tests.references import assert_equal_in_float32

RATE = 0.05
SHORT = Task(template="{text} is", labels={"good": " good", "bad": " bad"})


@pytest.fixture
def prefix_fit(toy_fit):
    return partial(toy_fit, method=PrefixTuningConfig, learning_rate=RATE)


@pytest.fixture
def encoded(loaded, toy_task, toy_examples):
    return encode_task(
        loaded("llama"), toy_task, toy_examples[:32], toy_examples[32:], virtual_tokens=6
    )


def config_of(base, tokens=6, **options):
    return PrefixTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens, **options)


def test_a_prefix_starts_with_the_answers_of_its_prompt(loaded, encoded):
    base = loaded("llama")
    start = choose_initialization(base, config_of(base), [encoded], "labels", seed=0)
    prompt = initial_vectors(base, config_of(base), "labels", [encoded], seed=0)
    assert start.vectors.shape == (6, prefix_shape(base).width)
    assert dev_loss(base, encoded, start.vectors, prefix=start.prefix) == pytest.approx(
        dev_loss(base, encoded, prompt), rel=1e-5
    )


def test_auto_chooses_among_the_same_starts_as_for_a_prompt(loaded, encoded):
    base = loaded("llama")
    prompt = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=6)
    found = [
        choose_initialization(base, config, [encoded], "auto", seed=0)
        for config in (prompt, config_of(base))
    ]
    assert found[0].name == found[1].name
    assert found[1].dev_loss == pytest.approx(found[0].dev_loss, rel=1e-5)


def test_the_gradient_is_that_of_the_loss_by_finite_differences(loaded, encoded):
    from softhub.training.data import collate

    base = loaded("llama")
    shape = prefix_shape(base)
    start = initial_vectors(base, config_of(base), "labels", [encoded], seed=0)
    vectors = vectors_of_prompt(base, start)
    batch = collate([encoded.train[index] for index in range(4)])
    module = PromptTuningModule(base, vectors, encoded.candidates, prefix=shape)
    module(**batch)["loss"].backward()
    torch.manual_seed(0)
    direction = torch.randn_like(module.prompt)
    direction /= direction.norm()
    losses = []
    for step in (1e-2, -1e-2):
        moved = vectors + step * direction * units_of(vectors, shape)
        other = PromptTuningModule(base, moved, encoded.candidates, prefix=shape)
        losses.append(other(**batch)["loss"].item())
    slope = (losses[0] - losses[1]) / 2e-2
    assert (module.prompt.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_trained_prefix_is_better_than_its_start_and_can_be_saved(kind, prefix_fit, tmp_path):
    base, result = prefix_fit(kind, max_steps=24)
    dev = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert min(dev) < 0.9 * dev[0] or min(dev) < 0.1
    manifest = result.prompt.manifest
    assert (manifest.prompt_type, manifest.hidden_size) == ("prefix", None)
    assert manifest.prefix == prefix_shape(base)
    assert manifest.fingerprint == base.fingerprint and manifest.task["name"] == "toy"
    assert manifest.provenance["init"] == "labels" and "dataset" in manifest.provenance
    assert (
        "a prefix for"
        in (result.prompt.save_pretrained(tmp_path / "adapter") / "README.md").read_text()
    )
    model = PromptModel(base)
    model.load_prompt(tmp_path / "adapter", name="toy")
    assert model.predict(["great value"], prompt="toy")[0].label in ("good", "bad")


def test_without_a_number_the_rate_is_a_share_of_each_layers_size(prefix_fit):
    base, result = prefix_fit(learning_rate=None, init="task", max_steps=4)
    training = result.prompt.manifest.provenance["training"]
    assert (training["learning_rate"], training["learning_rate_rule"]) == (0.02, "scaled")
    # The first step of Adam moves every number by the rate, in units of its layer.
    _, one = prefix_fit(learning_rate=0.02, max_steps=1, eval_steps=1, save_steps=1, warmup_steps=0)
    start = vectors_of_prompt(base, _start(base, one))
    moved = (one.prompt.vectors - start).abs() / units_of(start, prefix_shape(base))
    assert moved.median().item() == pytest.approx(0.02, rel=0.1)


def _start(base, result):
    """The labels' start, which a run of no learning ends with."""
    task = result.prompt.manifest.task
    assert task["name"] == "toy"
    from tests.training.conftest import example

    examples = [example(index) for index in range(40)]
    encoded = encode_task(
        base, Task.from_record(task), examples[:32], examples[32:], virtual_tokens=6
    )
    return initial_vectors(base, config_of(base), "labels", [encoded], seed=42)


def test_a_run_that_was_interrupted_continues_bit_by_bit(prefix_fit, tmp_path, ctrl_c_at):
    _, whole = prefix_fit(output_dir=str(tmp_path / "whole"))
    cut = tmp_path / "cut"
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted, match="after step 6"):
        prefix_fit(output_dir=str(cut))
    assert set(load_file(cut / "checkpoint-6" / "model.safetensors")) == {"prompt", "unit"}
    _, resumed = prefix_fit(output_dir=str(cut), resume=True)
    assert torch.equal(resumed.prompt.vectors, whole.prompt.vectors)


def test_a_failed_run_is_restarted(prefix_fit):
    _, result = prefix_fit(learning_rate=1e30, max_restarts=1)
    assert len(result.restarts) == 1
    (first,) = result.prompt.manifest.provenance["restarts"]
    assert first["learning_rate"] == 1e30
    again = result.prompt.manifest.provenance["training"]["learning_rate"]
    assert again == pytest.approx(0.02)  # the rule's own, rather than a quarter of what failed


def test_first_shallow_then_deep(toy_fit, prefix_fit, tmp_path):
    _, shallow = toy_fit(output_dir=str(tmp_path / "shallow"))
    folder = shallow.prompt.save_pretrained(tmp_path / "adapter")
    still = {"learning_rate": 1e-30, "max_steps": 4}
    base, deep = prefix_fit(init=folder, output_dir=str(tmp_path / "deep"), **still)
    expected = vectors_of_prompt(base, shallow.prompt.vectors)
    torch.testing.assert_close(deep.prompt.vectors, expected, rtol=2**-7, atol=1e-6)
    parent = SoftPrompt.from_pretrained(folder).manifest.files
    assert deep.prompt.manifest.provenance["init"] == {"parent": parent}
    # And a prefix goes on from a prefix.
    deeper = deep.prompt.save_pretrained(tmp_path / "deep-adapter")
    _, again = prefix_fit(init=deeper, output_dir=str(tmp_path / "again"), **still)
    torch.testing.assert_close(again.prompt.vectors, deep.prompt.vectors, rtol=1e-5, atol=1e-6)
    with pytest.raises(TrainingError, match=r"is a prefix; expected a prompt"):
        toy_fit(init=deeper)


def test_rounding_keeps_every_answer_or_is_left_out(loaded, encoded):
    base = loaded("llama")
    shape = prefix_shape(base)
    start = initial_vectors(base, config_of(base), "labels", [encoded], seed=0)
    vectors = vectors_of_prompt(base, start)
    rounded = round_prefix(base, [encoded], vectors, shape, 4)
    assert torch.equal(rounded, vectors.bfloat16().float())
    assert not torch.equal(rounded, vectors)


def test_rounding_is_left_out_where_an_answer_would_change(loaded):
    """Between two prefixes that answer differently, rounding decides on which side one is."""
    base = loaded("llama")
    shape = prefix_shape(base)
    task = Task(name="echo", kind="generation", template=Template("{text} is"), target_column="t")
    words = ["great", "easy", "love", "best"]
    rows = [Example(row={"text": word}, target=" good value") for word in words]
    echo = encode_task(base, task, rows, rows, virtual_tokens=6)

    def answers(matrix):
        module = PromptTuningModule(base, matrix, None, prefix=shape).eval()
        return _next_tokens(module, echo.dev, 4)

    torch.manual_seed(0)
    one, other = (vectors_of_prompt(base, torch.randn(6, base.hidden_size)) for _ in range(2))
    first = answers(one)
    assert not answers(other).equal(first)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        same = answers(one.lerp(other, middle)).equal(first)
        low, high = (middle, high) if same else (low, middle)
    near = [one.lerp(other, place) for place in (low, high)]
    edge = next(each for each in near if not answers(each).equal(answers(each.bfloat16().float())))
    assert torch.equal(round_prefix(base, [echo], edge, shape, 4), edge)


def test_generation_tasks_are_trained_and_rounded(tiny_base, tmp_path):
    task = Task(name="echo", kind="generation", template=Template("{text} is"), target_column="t")
    words = ["great", "easy", "love", "best"]
    rows = [Example(row={"text": word}, target=" good") for word in words]
    base = load_base(tiny_base("llama"))
    args = PromptTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=8,
        eval_steps=4,
        save_steps=4,
        max_restarts=0,
        use_cpu=True,
        disable_tqdm=True,
    )
    result = fit(base, task, config_of(base), {"train": rows, "dev": rows}, args=args)
    dev = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert dev[-1] < dev[0]
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="echo")
    found = model.target_logprobs(["great", "best"], [" good", " good"], prompt="echo")
    assert -sum(map(sum, found)) / sum(map(len, found)) < dev[0]


def test_a_mixture_and_the_tasks_that_start_from_it(tiny_base, toy_task, toy_examples, tmp_path):
    base = load_base(tiny_base("llama"))
    tasks = [replace(toy_task, name="one"), replace(toy_task, name="two", template=MOOD.template)]
    data = {"train": toy_examples[:32], "dev": toy_examples[32:]}
    args = PromptTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=4,
        eval_steps=2,
        save_steps=2,
        max_restarts=0,
        use_cpu=True,
        disable_tqdm=True,
    )
    results = fit_tasks(
        base, tasks, config_of(base), [data, data], args=args, shared_steps=4, init="vocabulary"
    )
    shared = SoftPrompt.from_pretrained(tmp_path / "run" / "shared" / "adapter")
    assert shared.prompt_type == "prefix" and shared.manifest.task is None
    for result in results:
        assert result.prompt.prompt_type == "prefix"
        assert result.prompt.manifest.provenance["init"] == {"parent": shared.manifest.files}
    mixed = fit_mixture(base, tasks, config_of(base), [data, data], args=args)
    assert torch.equal(mixed.prompt.vectors, mixed.prompt.vectors.bfloat16().float())
    model = PromptModel(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.load_prompt(mixed.prompt, name="mixed")
    assert model.predict(["great"], prompt="mixed", task=toy_task)


def test_fsdp_is_refused(prefix_fit, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match="A prefix cannot be trained with FSDP"):
        prefix_fit()


@pytest.mark.parametrize("other", [{"method": PromptTuningConfig}, {"tokens": 5}], ids=str)
def test_a_run_is_not_resumed_as_another_prompt(other, prefix_fit):
    prefix_fit(max_steps=4)
    with pytest.raises(TrainingError, match=r"has a prefix of shape \[6, \d+\]; expected a pr"):
        prefix_fit(max_steps=8, resume=True, **other)


def test_texts_that_are_too_long_for_cached_keys_are_refused_before_training(tmp_path):
    base, folder = family_base("gpt_neo"), tmp_path / "run"
    options = {"use_cpu": True, "max_steps": 2, "max_restarts": 0}
    args = PromptTrainingArguments(output_dir=str(folder), **options)
    words = base.encoder.candidates_of(SHORT).sequences
    room = WINDOW - 3 - len(base.encoder.tokens(" is")) - max(map(len, words))
    rows = [Example({"text": text}, label=text) for text in ("good", "bad") * 4]
    fits, long = (
        Example({"text": "0" * count}, label="good")  # one token each
        for count in (room, room + 1)
    )
    result = fit(base, SHORT, config_of(base, 3), {"train": rows, "dev": [fits, *rows]}, args=args)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="own")
    assert model.predict(fits.row, prompt="own", task=SHORT).label in ("good", "bad")
    before = sorted(folder.rglob("*"))
    for data in ({"train": [*rows, long], "dev": rows}, {"train": rows, "dev": [long, *rows]}):
        with pytest.raises(BaseModelError, match=f"gpt_neo cannot run .* rows of {WINDOW + 1} tok"):
            fit(base, SHORT, config_of(base, 3), data, args=args)
        with pytest.raises(BaseModelError, match=f"gpt_neo cannot run .* rows of {WINDOW + 1} tok"):
            fit_mixture(base, [SHORT], config_of(base, 3), [data], args=args)
    assert sorted(folder.rglob("*")) == before


def test_a_prefix_from_a_prompt_in_memory_names_its_parent(prefix_fit, tmp_path):
    """By the files that the prompt would be saved as."""
    _, prompt = prefix_fit(method=PromptTuningConfig, max_steps=4)
    _, result = prefix_fit(init=prompt.prompt, max_steps=4)
    saved = check_folder(prompt.prompt.save_pretrained(tmp_path / "adapter"))
    parent = result.prompt.manifest.provenance["init"]["parent"]
    assert parent == {name: saved.sha256[name] for name in (CONFIG, WEIGHTS)}


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_rounding_that_changes_a_label_is_not_done(several, loaded):
    """Of two prefixes on either side of a decision, rounding changes the label of one."""
    base, dev = loaded("llama"), [Example({"text": "great value"}, label="good")]
    several_labels = {"multilabel": True, "metrics": (), "yes_no": (" good", " bad")}
    task = replace(SHORT, **several_labels) if several else SHORT
    encoded = encode_task(base, task, dev, dev, virtual_tokens=3)
    drawn = [random_prefix(base, 3, seed=seed) for seed in range(40)]
    manifest, shape = drawn[0].manifest, drawn[0].manifest.prefix

    def lead(vectors):
        """How far the score of good is above what decides against it."""
        model = PromptModel(base)
        model.load_prompt(SoftPrompt(vectors, manifest), name="own")
        scores = model.predict(dev[0].row, prompt="own", task=task).scores
        return scores["good"] - (0 if several else scores["bad"])

    ordered = sorted((each.vectors for each in drawn), key=lead)
    bad, good = ordered[0], ordered[-1]
    assert lead(bad) < 0 < lead(good)
    near = []
    for _ in range(13):  # further ones would be decided by float32 alone
        near.append((good + bad) / 2)
        good, bad = (near[-1], bad) if lead(near[-1]) > 0 else (good, near[-1])
    kept = 0
    for vectors in near[4:]:
        rounded = vectors.bfloat16().float()
        leads = lead(vectors), lead(rounded)
        assert min(map(abs, leads)) > 2e-5
        found = round_prefix(base, [encoded], vectors, shape, 8)
        same = (leads[0] > 0) == (leads[1] > 0)
        assert torch.equal(found, rounded if same else vectors)
        kept += not same
    assert kept


def test_packed_label_words_and_shared_ones_give_the_same_loss(loaded, encoded):
    """A prompt's packed training pass and a prefix's cached one: one start, one loss."""
    from softhub.training.data import collate

    base = loaded("qwen3")
    start = initial_vectors(base, config_of(base), "labels", [encoded], seed=0)
    batch = collate([encoded.train[index] for index in range(8)])
    shape = prefix_shape(base)
    deep = vectors_of_prompt(base, start)
    modules = [
        PromptTuningModule(base, start, encoded.candidates),
        PromptTuningModule(base, deep, encoded.candidates, prefix=shape),
    ]
    losses = [module(**batch)["losses"] for module in modules]
    assert_equal_in_float32(losses[1], losses[0])


@pytest.mark.parametrize(
    ("kind", "options", "config", "error", "says"),
    [
        ("t5", {}, {}, BaseModelError, "encoder-decoder"),
        ("mistral", {}, {}, BaseModelError, "sliding windows"),
        ("llama", {"gradient_checkpointing": True}, {}, TrainingError, "gradient_checkpointing"),
        ("llama", {}, {"prefix_projection": True}, TrainingError, "prefix_projection"),
        ("llama", {}, {"num_virtual_tokens": 300_000}, TrainingError, "Use up to"),
        ("llama", {}, {"num_virtual_tokens": 0}, TrainingError, "num_virtual_tokens is 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_begins(
    kind, options, config, error, says, tiny_base, toy_task, toy_examples, tmp_path
):
    base = load_base(tiny_base(kind))
    args = PromptTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, **options)
    settings = {"task_type": base.task_type, "num_virtual_tokens": 4, **config}
    data = {"train": toy_examples[:32], "dev": toy_examples[32:]}
    with pytest.raises(error, match=says):
        fit(base, toy_task, PrefixTuningConfig(**settings), data, args=args)
    assert not (tmp_path / "run").exists()


def test_a_prefix_of_another_base_is_no_start(prefix_fit, loaded):
    other = random_prefix(loaded("qwen2"), 6)
    with pytest.raises(IncompatiblePrompt, match="model type"):
        prefix_fit(init=other)


def test_a_prefix_has_no_text_to_start_from_and_earlier_checkpoints_stay(prefix_fit, tmp_path):
    prefix_fit(max_steps=4)
    with pytest.raises(TrainingError, match="A prefix has none: use 'task' or a trained prompt"):
        prefix_fit(init="text")
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
