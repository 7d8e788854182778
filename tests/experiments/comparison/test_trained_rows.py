"""Rows of what is trained: prefixes, and weights whose learning rate is searched on dev."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from peft import PromptTuningConfig

from softhub.experiments.comparison import methods
from softhub.experiments.comparison.methods import _searched_starts as searched_starts
from softhub.experiments.comparison.methods import jobs
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import ComparedRow, RowStore
from softhub.experiments.comparison.trained_weights import ia3_refusal
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.tasks import Splits, Task
from softhub.training import PromptTrainingArguments, fit


@pytest.fixture
def rows_of(tiny_base, toy_task, toy_examples, tmp_path):
    """`rows_of(method, kind, **options)`: the rows that it gives with seed 0, by setting."""

    def run(method, kind="llama", *, train=None, **options):
        args = PromptTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            eval_steps=2,
            save_steps=2,
            logging_steps=1,
            learning_rate=0.1,
            max_restarts=0,
            use_cpu=True,
            disable_tqdm=True,
        )
        setup = ComparisonSetup(
            task=toy_task,
            data=Splits(train or toy_examples[:24], toy_examples[24:32], toy_examples[32:]),
            load=lambda: load_base(tiny_base(kind)),
            args=args,
            methods=[method],
            seeds=[0],
            rate_steps=2,
            **options,
        )
        return {job.key[1]: job.run() for job in jobs(setup)}

    return run


def test_a_prefix_has_its_own_defaults_and_its_adapter_gives_the_row(
    rows_of, tiny_base, toy_task, toy_examples, tmp_path
):
    rows = rows_of("prefix", prefix_tokens=[3, 5])
    assert [*rows] == ["P = 3", "P = 5"]
    row = rows["P = 5"]
    assert (row.details["init"], row.details["learning_rate"]) == ("task", 0.02)
    assert row.details["learning_rate_rule"] == "scaled"
    assert row.details["train_loss_at_end"] > 0
    assert row.trainable_parameters % 5 == 0 and row.trainable_parameters > 5 * 32
    folder = tmp_path / "adapters" / "prefix5-seed0"
    assert row.bytes == sum(file.stat().st_size for file in folder.iterdir())
    model = PromptModel(load_base(tiny_base("llama")))
    model.load_prompt(folder, name="prefix")
    texts = [example.row for example in toy_examples[32:]]
    found = model.predict(texts, prompt="prefix", task=toy_task)
    assert [each.best for each in found] == row.predictions


def test_what_a_base_cannot_run_is_left_out_with_the_reason(rows_of, caplog):
    assert rows_of("prefix", "t5") == {}
    assert "prefix is left out" in caplog.text and "encoder-decoder" in caplog.text


def test_solved_examples_that_do_not_fit_are_left_out_with_the_reason(
    rows_of, toy_examples, caplog
):
    """Two long examples fit into the context of 512 tokens, and eight do not."""
    train = [replace(each, row={"text": f"{each.text} {'word ' * 40}"}) for each in toy_examples]
    rows = rows_of("few-shot", train=train, shots=[2, 8])
    assert [row.method for row in rows.values()] == ["2-shot"]
    assert "8-shot is left out: with seed 0, not every text fits after the solved" in caplog.text
    assert "2-shot" not in caplog.text


def test_ia3_is_left_out_where_peft_does_not_know_the_layers(tiny_base, monkeypatch):
    base = load_base(tiny_base("llama"))
    assert ia3_refusal(base) is None
    monkeypatch.setattr(base.model.config, "model_type", "unheard-of")
    assert "no default layers of IA3 for models of type unheard-of" in ia3_refusal(base)


@pytest.mark.slow
def test_the_rate_with_the_lowest_dev_loss_is_used_and_the_search_is_recorded(rows_of, tmp_path):
    (searched,) = rows_of("LoRA", lora_rates=[1e-9, 1e-2]).items()
    setting, row = searched
    assert setting == "rank 8, rate searched"
    losses = row.details["dev_losses_by_rate"]
    assert [*losses] == ["1e-09", "0.01"] and losses["0.01"] < losses["1e-09"]
    assert (row.details["learning_rate"], row.details["steps_by_rate"]) == (0.01, 2)
    path = tmp_path / "rates.jsonl"
    lines = path.read_text().splitlines()
    assert [json.loads(line)["dev_loss"] for line in lines] == [*losses.values()]
    # A finished search is not repeated: its records decide, whatever they say.
    records = [{**json.loads(line), "dev_loss": number} for number, line in enumerate(lines)]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    again = rows_of("LoRA", lora_rates=[1e-9, 1e-2])[setting]
    assert again.details["learning_rate"] == 1e-9
    assert len(path.read_text().splitlines()) == 2


def test_a_stored_row_of_the_chosen_rate_is_the_same_run(rows_of, tmp_path):
    given = rows_of("IA3", ia3_rates=[0.02])
    row = given[""]
    assert row.details["learning_rate_rule"] == "given"
    store = RowStore(tmp_path)
    store.add(ComparedRow(**asdict(row) | {"train_seconds": 12345.0}))
    same = rows_of("IA3", ia3_rates=[1e-9, 0.02])["rate searched"]
    assert (same.train_seconds, same.predictions) == (12345.0, row.predictions)
    assert same.details["same_run"] and "short runs" in same.details["learning_rate_rule"]
    assert same.setting == "rate searched"


def test_an_optimized_hard_prompt_has_its_budget_and_bytes(rows_of):
    row = rows_of("optimized hard prompt", searched_texts=60)[""]
    assert row.seed == 0 and row.trainable_parameters == 0
    assert row.bytes == len(row.details["prompt"].encode())
    assert row.details["dev_texts_scored"] >= 60 or row.details["shots"] < 4
    assert row.train_seconds > 0 and len(row.predictions) == 8


def test_the_optimized_hard_prompt_is_a_candidate_of_init_auto(
    rows_of, tiny_base, tmp_path, monkeypatch
):
    """Its last tokens, which are those before the text; a run whose search is missing has none."""
    without = rows_of("soft prompt", virtual_tokens=[3], init="auto")["P = 3"]
    assert not without.details["init"].startswith("candidate")
    text = "great value money best love"
    RowStore(tmp_path).add(
        ComparedRow(
            "optimized hard prompt",
            {"accuracy": 1.0},
            ["good"] * 8,
            seed=0,
            details={"prompt": f"{text}Review: {{text}}\nSentiment:"},
        )
    )
    setup = SimpleNamespace(
        base=load_base(tiny_base("llama")),
        task=Task.from_record({"name": "t", "kind": "generation", "template": "{text}"}),
        args=SimpleNamespace(output_dir=tmp_path),
    )
    base = setup.base
    ids = base.encoder.tokens(f"{text}Review: ")
    for tokens in (3, len(ids) + 2):
        config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
        (start,) = searched_starts(setup, config, 0)
        expected = base.embed(torch.tensor((ids * 2)[-tokens:]))
        assert torch.equal(start.vectors, expected.float())
    assert searched_starts(setup, config, 1) == []
    passed = []

    def fit_with_a_record(*args, **options):
        passed.extend(options["init_candidates"])
        return fit(*args, **options)

    monkeypatch.setattr(methods, "fit", fit_with_a_record)
    assert rows_of("soft prompt", virtual_tokens=[3], init="auto")["P = 3"].steps == 4
    (start,) = passed
    assert torch.equal(start.vectors, base.embed(torch.tensor(ids[-3:])).float())
