"""Whole comparisons on a tiny base: what stops one, what it keeps, and what it refuses."""

import json
from dataclasses import asdict

import pytest

from softhub.errors import ConfigError, TaskError, TrainingError, TrainingInterrupted
from softhub.experiments.comparison import RowStore, compare, trained_weights
from softhub.model.loading import load_base
from softhub.training import PromptTrainingArguments

GRID = {"methods": ["LoRA"], "lora_rates": [1e-9, 1e-2]}


@pytest.fixture
def compared(tiny_base, toy_task, toy_examples, tmp_path):
    """`compared(training, **options)`: the rows of a folder after a comparison in it, by key."""

    def run(training=(), **options):
        settings = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "logging_steps": 1}
        args = PromptTrainingArguments(
            output_dir=str(tmp_path),
            learning_rate=0.1,
            max_restarts=0,
            use_cpu=True,
            disable_tqdm=True,
            **{**settings, **dict(training)},
        )
        compare(
            lambda: load_base(tiny_base("llama")),
            toy_task,
            {"train": toy_examples[:24], "dev": toy_examples[24:32], "test": toy_examples[32:]},
            args=args,
            **{"seeds": [0], "virtual_tokens": [3], "ensemble_of": 3, "rate_steps": 2, **options},
        )
        return {row.key: row for row in RowStore(tmp_path).rows()}

    return run


@pytest.mark.parametrize(
    "training",
    [
        {"max_steps": None, "num_train_epochs": 1.0},
        {"early_stopping_patience": 2},
        {"metric_for_best_model": "accuracy"},
        {"max_steps": "auto", "auto_max_steps": 4},
    ],
)
def test_rates_are_searched_whatever_the_length_of_the_runs(compared, training, tmp_path):
    (row,) = compared(training, **GRID).values()
    assert row.details["rates"] == [1e-9, 1e-2]
    assert row.details["learning_rate"] == 1e-2
    records = [json.loads(line) for line in (tmp_path / "rates.jsonl").read_text().splitlines()]
    assert [record["steps"] for record in records] == [2, 2]


def test_a_rate_that_diverges_is_not_the_best(compared, tmp_path):
    (row,) = compared(methods=["LoRA"], lora_rates=[1e-2, 3e38]).values()
    assert row.details["learning_rate"] == 1e-2
    assert row.details["dev_losses_by_rate"]["3e+38"] is None
    json.loads((tmp_path / "rows.jsonl").read_text(), parse_constant=pytest.fail)
    with pytest.raises(TrainingError, match=r"full fine-tuning: the loss became .* 2e\+38, 3e\+38"):
        compared(methods=["full fine-tuning"], fine_tuning_rates=[2e38, 3e38])


def test_a_line_of_the_short_runs_that_was_cut_off_is_mended(compared, tmp_path):
    path = tmp_path / "rates.jsonl"
    compared(**GRID)
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(lines[0] + lines[1][:-40])
    compared(**GRID, seeds=[0, 1])
    assert [json.loads(line)["rate"] for line in path.read_bytes().splitlines()] == [1e-9, 1e-2]
    path.write_bytes(b"[]\n")
    with pytest.raises(ConfigError, match=r"rates\.jsonl is damaged: line 1"):
        compared(**GRID, seeds=[0, 1, 2])


def test_what_no_row_can_fit_is_found_before_the_first_is_computed(compared, tmp_path):
    with pytest.raises(TaskError, match="leave no room for a text"):
        compared(methods=["majority label", "soft prompt"], virtual_tokens=[3, 600])
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_processes_that_train_together_do_not_wait_for_a_lock(
    compared, process, monkeypatch, tmp_path
):
    """Each would hold or want it while it trains with the others; the first writes alone."""
    state = {"num_processes": 2, "is_main_process": process == 0}
    stub = type("State", (), state)
    monkeypatch.setattr(trained_weights, "PartialState", stub)
    monkeypatch.setattr(trained_weights, "FileLock", lambda _: pytest.fail("locked"))
    compared(**GRID)
    assert (tmp_path / "rates.jsonl").is_file() == (process == 0)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"methods": ["LoRA"], "lora_rates": [1e-3]},
            {"methods": ["LoRA"], "lora_rates": [1e-1], "seeds": [0, 1]},
            r"LoRA, rank 8 with learning_rate 0\.001; expected learning_rate 0\.1",
        ),
        (
            GRID,
            {**GRID, "lora_rates": [1e-9, 1e-2, 1e-1]},
            r"rate searched with rates \[1e-09, 0\.01\], .*expected rates \[1e-09, 0\.01, 0\.1\]",
        ),
        (GRID, {**GRID, "rate_steps": 1}, r"steps_by_rate 2; expected .* steps_by_rate 1"),
        (
            {"methods": ["optimized hard prompt"], "searched_texts": 60},
            {"methods": ["optimized hard prompt"], "searched_texts": 80},
            "searched_texts 60; expected searched_texts 80",
        ),
    ],
)
def test_rows_with_other_options_are_refused(compared, first, second, said, tmp_path):
    compared(**first)
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=rf"contains rows of .*{said}.*another output_dir"):
        compared(**second)
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    # Rows of earlier versions did not record their options.
    rows = [json.loads(line) for line in before.splitlines()]
    known = ("learning_rate_rule", "prompt")
    for row in rows:
        row["details"] = {key: row["details"][key] for key in known if key in row["details"]}
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    compared(**second)


def test_an_ensemble_is_of_its_seeds_and_takes_their_time(compared, tmp_path):
    methods = ["soft prompt", "soft-prompt ensemble"]
    rows = compared(methods=methods, seeds=[1, 0])
    ensemble = rows["soft-prompt ensemble", "2 of P = 3", None]
    assert ensemble.details["seeds"] == [0, 1]
    members = [rows["soft prompt", "P = 3", seed].train_seconds for seed in (0, 1)]
    assert ensemble.train_seconds == pytest.approx(sum(members))
    with pytest.raises(ConfigError, match=r"seeds \[0, 1\]; expected seeds \[2, 3\].*leave the"):
        compared(methods=methods, seeds=[2, 3])
    assert len(compared(methods=methods[:1], seeds=[2, 3])) == 5


@pytest.mark.parametrize("method", ["soft prompt", "LoRA"])
def test_ctrl_c_says_that_finished_rows_are_kept(compared, method, ctrl_c_at):
    said = r"run the same command again; finished rows are kept"
    with ctrl_c_at(1), pytest.raises(TrainingInterrupted, match=said) as caught:
        compared(methods=["zero-shot", method], lora_rates=[1e-3])
    assert "--resume" not in str(caught.value)
    (row,) = compared(methods=["zero-shot"]).values()
    assert row.method == "zero-shot"
    assert asdict(row)["predictions"]
