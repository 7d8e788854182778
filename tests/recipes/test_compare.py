"""recipes/compare.py on a tiny base: every method gives a row; a second run adds what is new."""

import json
from pathlib import Path

import pytest

from softhub.experiments.comparison import METHODS
from tests.recipes.test_generation import CODE_TASK, written
from tests.recipes.test_workflow import write_project

pytestmark = pytest.mark.slow


@pytest.fixture
def compare(recipe, tiny_base, tmp_path):
    """`compare(*flags)`: exit code and output, and the rows that are then there."""
    config = write_project(tmp_path, tiny_base("llama"))
    text = config.read_text().replace("num_virtual_tokens: 4\n", "ensemble_of: 3\n")
    config.write_text(text)

    def run(*flags):
        done = recipe("compare", "--config", config, *flags)
        path = tmp_path / "run" / "rows.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return done, [json.loads(line) for line in lines]

    return run


def keys(rows):
    return [(row["method"], row["setting"], row["seed"]) for row in rows]


def test_every_method_gives_a_row_and_a_second_run_goes_on(compare):
    flags = ("--virtual_tokens", 3, "--prefix_tokens", 3, "--shots", 2, "--seeds", 0, 1)
    flags += ("--max_restarts", 0, "--rate_steps", 1, "--lora_rates", 0.001)
    done, rows = compare(*flags, "--methods", "soft prompt", "zero-shot")
    assert done.code == 0, done.err
    assert keys(rows) == [
        ("zero-shot", "", None),
        ("soft prompt", "P = 3", 0),
        ("soft prompt", "P = 3", 1),
    ]
    done, more = compare(*flags)
    assert done.code == 0, done.err
    assert more[:3] == rows
    assert sorted(map(str, keys(more[3:]))) == sorted(
        map(
            str,
            [
                ("majority label", "", None),
                ("zero-shot, bias-corrected", "", None),
                *(
                    (name, setting, seed)
                    for name, setting in (
                        ("2-shot", ""),
                        ("optimized hard prompt", ""),
                        ("prefix", "P = 3"),
                        ("LoRA", "rank 8"),
                        ("IA3", "rate searched"),
                        ("full fine-tuning", "rate searched"),
                    )
                    for seed in (0, 1)
                ),
                ("soft-prompt ensemble", "2 of P = 3", None),
            ],
        )
    )
    other, same = compare(*flags, "--learning_rate", "0.5")
    assert (other.code, same) == (1, more)
    assert "other training" in other.err and "another output_dir" in other.err
    by_key = {key: row for key, row in zip(keys(more), more, strict=True)}
    soft, full = by_key["soft prompt", "P = 3", 0], by_key["full fine-tuning", "rate searched", 1]
    assert len(soft["predictions"]) == len(full["predictions"]) == 24
    assert soft["trainable_parameters"] == 3 * 32 < full["trainable_parameters"]
    assert soft["bytes"] < full["bytes"] == 4 * full["trainable_parameters"]
    assert by_key["2-shot", "", 0]["prompt_tokens"] > by_key["zero-shot", "", None]["prompt_tokens"]
    assert [logs["step"] for logs in soft["history"]] == [1, 2]
    report = Path(done.out.splitlines()[-1].removeprefix("Report: "))
    table = json.loads(report.with_name("report.json").read_text())["lines"]
    assert [(line["method"], line["seeds"]) for line in table[-2:]] == [
        ("LoRA", [0, 1]),
        ("full fine-tuning", [0, 1]),
    ]
    assert "Missing runs" in report.read_text()


def test_an_encoder_decoder_is_compared_in_every_way(recipe, tiny_base, tmp_path):
    config = write_project(tmp_path, tiny_base("t5"))
    config.write_text(config.read_text().replace("num_virtual_tokens: 4\n", "ensemble_of: 3\n"))
    flags = ("--virtual_tokens", 3, "--shots", 2, "--seeds", 0, 1, "--max_restarts", 0)
    flags += ("--rate_steps", 1, "--searched_texts", 1)
    done = recipe("compare", "--config", config, *flags)
    assert done.code == 0, done.err
    lines = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    assert {json.loads(line)["method"] for line in lines} == {
        "2-shot",
        *(method for method in METHODS if method not in ("few-shot", "prefix")),
    }


def test_generated_code_is_compared_by_its_tests(recipe, tiny_base, tmp_path):
    judged = CODE_TASK.replace("[pass_at_1]", "[pass_at_1, valid_python]")
    rows = [
        {"prompt": f"def f{n}():\n", "body": "    return 1", "tests": f"assert f{n}() == 1"}
        for n in range(6)
    ]
    frame = "code_column: prompt\ngeneration: {max_new_tokens: 8}\n"
    task = written(tmp_path, judged + frame, rows)
    flags = ("--task", task, "--base_model", tiny_base("llama"), "--methods", "zero-shot")
    for folder, asked in (("read", ()), ("run", ("--run_generated_code", "true"))):
        done = recipe("compare", *flags, "--output_dir", tmp_path / folder, *asked)
        assert done.code == 0, done.err
        (row,) = map(json.loads, (tmp_path / folder / "rows.jsonl").read_text().splitlines())
        assert row["judged"]["code"][0].startswith("def f0():")
        assert ("pass_at_1" in row["metrics"]) == bool(asked)
        report = json.loads((tmp_path / folder / "report.json").read_text())
        assert report["metric"] == ("pass_at_1" if asked else "valid_python")
    mixed = recipe("compare", *flags, "--output_dir", tmp_path / "read", *asked)
    assert mixed.code == 1 and "other metrics" in mixed.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--methods", "Lora"), "Unknown method 'Lora'"),
        (("--methods", "soft-prompt ensemble", "--seeds", 0, 1), "ensemble needs soft prompts"),
    ],
)
def test_mistakes_are_one_line(flags, words, compare):
    done, rows = compare(*flags)
    assert done.code == 1
    assert words in done.err and "Traceback" not in done.err
    assert not [row for row in rows if row["method"] != "majority label"]
