"""recipes/medical.py with its own configs and tasks, on tiny bases and a few invented findings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recipes.data.hpo import SYSTEMS
from softhub import SoftPrompt
from softhub.tasks import Task
from tests.command import Command

RECIPES = Path(__file__).parents[2] / "recipes"
EXAMPLE = "The patient presents dyspnea with bilateral crackles."
ROWS = {
    "organ": [
        {"text": f"A finding of the {label} kind, number {number}.", "label": label}
        for label in SYSTEMS.values()
        for number in range(2)
    ],
    "terms": [{"text": f"sore {part}", "term": f"Pain of the {part}"} for part in ("eye", "skin")],
    "text": [{"name": f"Pain of the {part}", "text": "An ache."} for part in ("eye", "skin")],
}
FEW_STEPS = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "use_cpu": True}


@pytest.fixture
def medical(recipe: Command, tmp_path: Path) -> Callable[..., tuple[str, dict, SoftPrompt]]:
    """`medical(name, base)`: what the recipe prints, its report, and the prompt."""
    for folder in ("tasks", "configs"):
        shutil.copytree(RECIPES / folder, tmp_path / folder)
    for name, rows in ROWS.items():
        folder = tmp_path / "data" / "files" / "hpo" / name
        folder.mkdir(parents=True)
        for split in ("train", "dev", "test"):
            lines = (
                json.dumps({**row, "group": f"{i}", "id": f"{i}"}) for i, row in enumerate(rows)
            )
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

    def run(name, base):
        config = tmp_path / "configs" / f"medical_{name}.yaml"
        flags = {**FEW_STEPS, "base_model": base, "base_name": "tests/tiny"}
        flags |= {"output_dir": tmp_path / "run", "num_virtual_tokens": 5}
        done = recipe(
            "medical", "--config", config, *(f"--{key}={value}" for key, value in flags.items())
        )
        assert done.code == 0, done.err
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        return done.out, report, SoftPrompt.from_pretrained(tmp_path / "run" / "adapter")

    return run


def scores(report: dict, metric: str) -> dict[str, float]:
    return {row["name"]: row["metrics"][metric]["value"] for row in report["rows"]}


@pytest.mark.slow
def test_findings_are_sorted_and_the_example_is_shown(medical, tiny_base):
    out, report, prompt = medical("organ", tiny_base("llama"))
    names = ["majority label", "zero-shot", "zero-shot, bias-corrected", "soft prompt"]
    assert list(scores(report, "accuracy")) == names
    assert scores(report, "accuracy")["majority label"] == pytest.approx(0.1)
    assert {row["examples"] for row in report["rows"]} == {20}
    assert prompt.vectors.shape == (5, 32)
    assert [metric.name for metric in prompt.manifest.metrics] == ["accuracy", "macro_f1"]
    assert prompt.manifest.task["decision"]["temperature"] != 1
    assert report["labels"]["decision"] == prompt.manifest.task["decision"]
    assert {each["label"] for each in report["labels"]["per_class"]["classes"]} == set(
        SYSTEMS.values()
    )
    assert report["reliability_on_dev"]["operating_points"]
    for name in ("base model", "soft prompt"):
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name}: '{EXAMPLE}'")]
        assert line.rpartition("-> ")[2].strip("'") in SYSTEMS.values()
    assert "not for clinical use" in out


@pytest.mark.slow
def test_lay_words_become_terms_on_an_encoder_decoder(medical, tiny_base):
    _, report, prompt = medical("terms", tiny_base("t5"))
    assert list(scores(report, "chrf")) == ["copied text", "zero-shot", "soft prompt"]
    assert {metric.name for metric in prompt.manifest.metrics} == {"chrf", "exact_match"}
    assert report["hard_prompts"][0]["template"]["text"].count("{text}") == 1
    assert "labels" not in report


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_medical_text_is_judged_by_perplexity(medical, tiny_base, kind):
    out, report, prompt = medical("text", tiny_base(kind))
    found = scores(report, "perplexity")
    assert list(found) == ["zero-shot", "soft prompt"]
    assert all(value > 1 for value in found.values())
    assert f"{found['soft prompt']:.1f} (" in out and "perplexity, %" not in out
    (metric,) = prompt.manifest.metrics
    assert (metric.name, metric.value) == ("perplexity", found["soft prompt"])
    assert metric.baselines == {"zero-shot": found["zero-shot"]}
    assert metric.examples == 2


@pytest.mark.parametrize("name", ROWS)
def test_the_tasks_say_what_they_are_not_for(name):
    task = Task.from_file(RECIPES / "tasks" / f"medical_{name}.yaml")
    assert "not for clinical use" in task.limitations
    assert Task.from_record(task.to_record()).limitations == task.limitations
    assert 3 <= len(task.hard_templates) <= 4


def test_without_a_config_it_takes_the_organ_systems(recipe, tmp_path):
    done = recipe("medical", "--task", tmp_path / "none.yaml", "--output_dir", tmp_path / "run")
    assert done.code == 1
    assert "none.yaml" in done.err  # the config's base and settings were read, the flag came last
    assert "required" not in done.err
