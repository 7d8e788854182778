"""distill: from a task file and a long prompt to an adapter, a table and what it retains."""

import json
import os
import signal
from pathlib import Path

import pytest

from softhub.model.prompt import SoftPrompt
from softhub.training.callbacks import HistoryCallback
from tests.command import Command

TASK = """
name: toy
kind: classification
dataset:
  data_files: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
label_column: label
group_column: group
template: "Review: {text}\\nSentiment:"
verbalizer: {good: " great", bad: " waste"}
hard_templates:
  - "Review: {text}\\nSentiment:"
  - "Is it good or not? Answer with one word.\\n\\nReview: {text}\\nSentiment:"
metrics: [accuracy]
"""
NO_BASE = ("--base", "./nowhere")  # that what is wrong is found before the base is loaded
WORDS = ("great", "easy", "love", "best", "value", "waste", "broke", "money", "nobody", "again")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task with twenty rows, which are all three splits."""
    rows = [
        {"text": f"{WORDS[i % 10]} {WORDS[i * 7 % 10]} {i}", "label": "bad" if i % 3 else "good"}
        for i in range(20)
    ]
    lines = [json.dumps({**row, "group": str(i)}) for i, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    file = tmp_path / "task.yaml"
    file.write_text(TASK)
    return file


@pytest.fixture
def options(task: Path, base: Path, tmp_path: Path) -> list[object]:
    """What every call here has: a run of two steps."""
    small = ["--tokens", 4, "--max-steps", 2, "--batch-size", 4, "--init", "vocabulary"]
    return ["--task", task, "--base", base, "--output-dir", tmp_path / "run", *small]


def test_a_student_trains_until_dev_stops_falling(
    softhub: Command, options: list[object], tmp_path: Path
) -> None:
    auto = ["--max-steps", "auto", "--learning-rate", "1e-30"]  # the last of two values wins
    done = softhub("distill", *options, "--template", "2", *auto)
    assert done.code == 0, done.err
    assert "ended after 120 steps: the dev loss has not fallen for 100 steps" in done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["training"]["ended"] in done.err
    wrong = softhub("distill", *options, "--template", "2", "--overwrite", "--max-steps", "some")
    assert (wrong.code, "expected a number of optimizer steps, or 'auto'" in wrong.err) == (1, True)
    assert (tmp_path / "run" / "adapter").is_dir()


def test_a_few_shot_prompt_becomes_an_adapter_and_a_report(
    softhub: Command, options: list[object], tmp_path: Path
) -> None:
    done = softhub("distill", *options, "--shots", 4, "--bias-corrected", "--base-name", "my/tiny")
    assert done.code == 0, done.err
    assert "step 2/2" in done.err
    assert "Asking the teacher about 20 texts …\n" in done.err
    assert "Evaluating few-shot prompts" not in done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    kept = report["distillation"]
    tokens = kept["tokens"]
    saved = tokens["teacher"] - tokens["student"]
    fewer = f"{saved} fewer ({saved / tokens['teacher']:.0%})"
    assert f"the teacher needs {tokens['teacher']}, {fewer}" in done.out
    assert f"{100 * kept['agreement']:.1f} % of the answers on the test split" in done.out
    assert "of the teacher's accuracy (" in done.out
    assert [row["name"] for row in report["rows"]] == ["teacher", "short template", "soft prompt"]
    assert report["teacher"]["from"] == "few-shot prompt"
    manifest = SoftPrompt.from_pretrained(tmp_path / "run" / "adapter").manifest
    assert manifest.base_model == "my/tiny"
    assert manifest.provenance["distilled"] == report["teacher"]
    assert manifest.metrics[0].baselines.keys() == {"teacher", "short template"}
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "- distilled: from `few-shot prompt`" in card


def test_texts_of_a_log_and_a_template_by_its_number_need_no_labels(
    softhub: Command, options: list[object], task: Path, tmp_path: Path
) -> None:
    task.write_text(TASK.replace("test: rows.jsonl", "").replace("dev: rows.jsonl, ", ""))
    log = tmp_path / "log.txt"
    log.write_text("\n".join(f"{word} {word} value" for word in WORDS))
    done = softhub("distill", *options, "--template", 2, "--texts", log)
    assert done.code == 0, done.err
    adapter = tmp_path / "run" / "adapter"
    assert str(adapter) in done.out
    assert "% of the answers on the dev split" in done.out
    record = SoftPrompt.from_pretrained(adapter).manifest.provenance
    assert record["distilled"]["template"].startswith("Is it good or not?")
    sizes = {split: record["dataset"][split]["examples"] for split in ("train", "dev")}
    assert sizes == {"train": 8, "dev": 2}
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["rows"] == [] and 0 <= report["distillation"]["agreement"] <= 1
    assert report["training"]["steps"] == 2 and (tmp_path / "run" / "curve.png").is_file()
    (run,) = json.loads(softhub("runs", tmp_path, "--json").out)
    assert (run["path"], run["state"]) == ("run", "finished")


def test_the_system_text_goes_from_the_student_s_chat(
    softhub: Command, options: list[object], task: Path, tmp_path: Path
) -> None:
    chat = TASK.replace('"Review: {text}\\nSentiment:"', '"Review: {text}"').replace('" ', '"')
    task.write_text(chat + "system: You are a careful assistant. Answer with one word.\n")
    done = softhub("distill", *options, "--system")
    assert done.code == 0, done.err
    manifest = SoftPrompt.from_pretrained(tmp_path / "run" / "adapter").manifest
    assert manifest.task is not None
    assert "careful" not in manifest.task["template"]
    assert "careful" in manifest.provenance["distilled"]["system"]


def test_another_adapter_is_a_teacher(
    softhub: Command, options: list[object], adapter: Path, task: Path, tmp_path: Path
) -> None:
    task.write_text(TASK.replace("good:", "positive:").replace("bad:", "negative:"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"good"', '"positive"').replace('"bad"', '"negative"'))
    done = softhub("distill", *options, "--teacher", adapter)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["teacher"]["virtual_tokens"] == 5


def test_a_student_may_be_a_prefix(softhub: Command, options: list[object], tmp_path: Path) -> None:
    done = softhub("distill", *options, "--template", 2, "--prompt-type", "prefix")
    assert done.code == 0, done.err
    manifest = SoftPrompt.from_pretrained(tmp_path / "run" / "adapter").manifest
    assert (manifest.prompt_type, manifest.num_virtual_tokens) == ("prefix", 4)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]][-1] == "prefix"


def test_an_interrupted_run_exits_with_130_and_can_be_resumed(
    softhub: Command, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HistoryCallback.on_log

    def press(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
        if state.global_step == 10 and "loss" in logs:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, args, state, control, logs=logs, **kwargs)

    options[options.index("--max-steps") + 1] = 12
    with monkeypatch.context() as patch:
        patch.setattr(HistoryCallback, "on_log", press)
        stopped = softhub("distill", *options, "--template", 2)
    assert stopped.code == 130
    assert f"A checkpoint was saved in {tmp_path / 'run'}; continue with --resume." in stopped.err
    done = softhub("distill", *options, "--template", 2, "--resume")
    assert done.code == 0, done.err
    assert "step 12/12" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        ([], 2, "give one teacher"),
        (["--shots", 2, "--template", 2], 2, "found --template and --shots"),
        (["--template", 9], 1, "Found --template 9, but the task toy has 2 hard_templates"),
        (["--template", "No column"], 1, "contains {text} 0 times"),
        (["--system"], 1, "has no system text to distill"),
        (["--shots", 2, "--init", "best", *NO_BASE], 1, "Unknown init"),
        (["--shots", 2, "--output-dir", __file__, *NO_BASE], 1, "cannot be written to"),
        (["--shots", 21, *NO_BASE], 1, "--shots is 21, but the train split has 20 rows"),
        (["--shots", 2, "--prompt-type", "lora"], 2, "'lora' is not one of 'prompt', 'prefix'"),
        (["--shots", 2, "--texts", "nowhere.txt"], 1, "nowhere.txt: there is no such file"),
        (["--shots", 2, "--resume"], 1, "Nothing to resume"),
        (["--teacher", "./nowhere"], 1, "no adapter folder"),
        (
            ["--shots", 2, "--learning-rate", "fast"],
            2,
            "'--learning-rate': Input should be",
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(
    softhub: Command, options: list[object], arguments: list[object], code: int, problem: str
) -> None:
    done = softhub("distill", *options, *arguments)
    assert done.code == code
    assert problem in " ".join(done.err.split())
    assert "Traceback" not in done.err
