"""Each recipe is short, and its `main` can be called with objects, as in a notebook."""

import ast
import importlib
import json

import pytest

from softhub import Hub, PromptTrainingArguments, SoftPrompt
from tests.recipes.dry_run import RECIPES
from tests.recipes.test_workflow import write_project

pytestmark = pytest.mark.filterwarnings("ignore:an interval over")  # made rows are few

NAMES = ("classification", "compare", "generation", "medical", "multitask")
GENERATION_TASK = """\
name: repeat
kind: generation
template: "{text} It is"
target_column: label
metrics: [chrf]
generation: {max_new_tokens: 3}
dataset:
  data_files: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
"""


@pytest.fixture
def settings(tiny_base, tmp_path):
    """`settings(task)`: keyword arguments of a recipe's config, for a task of a dozen rows."""
    write_project(tmp_path, tiny_base("qwen3"))
    (tmp_path / "repeat.yaml").write_text(GENERATION_TASK)
    common = {"base_model": str(tiny_base("qwen3")), "num_virtual_tokens": 4}

    def make(task):
        return {"task": str(tmp_path / f"{task}.yaml"), "max_test_examples": 5, **common}

    return make


@pytest.fixture
def args(tmp_path):
    steps = {"max_steps": 1, "eval_steps": 1, "save_steps": 1, "max_restarts": 0}
    return PromptTrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, **steps)


def run(name, args, **settings):
    """Call the recipe's `main` with an instance of the config class that it is annotated with."""
    main = importlib.import_module(f"recipes.{name}").main
    main(main.__annotations__["config"](**settings), args)


def report_of(folder):
    report = json.loads((folder / "report.json").read_text())
    return report, {row["name"]: row["examples"] for row in report["rows"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_reads_like_a_method_section(name):
    source = (RECIPES / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 45
    (main,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    ]
    assert [argument.arg for argument in main.args.args] == ["config", "args"]
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(main)) - 1 <= 16
    imported = [node.module for node in ast.walk(ast.parse(source)) if "module" in node._fields]
    assert not any(module.startswith(("softhub.cli", "recipes")) for module in imported)


def test_every_recipe_is_among_them():
    assert sorted(path.stem for path in RECIPES.glob("*.py")) == list(NAMES)


def test_classification(settings, args, tmp_path, capsys):
    run("classification", args, **settings("mood"), examples_per_label=3)
    report, examples = report_of(tmp_path / "run")
    assert examples["soft prompt"] == 5 and report["config"]["examples_per_label"] == 3
    assert report["provenance"]["dataset"]["train"]["examples"] == 6
    assert "5 test examples" in capsys.readouterr().out
    prompt = SoftPrompt.from_pretrained(tmp_path / "run" / "adapter")
    assert prompt.manifest.task["decision"]["temperature"] != 1  # calibrated on dev


def test_generation(settings, args, tmp_path, capsys):
    run("generation", args, **settings("repeat"), examples_shown=2)
    _, examples = report_of(tmp_path / "run")
    assert examples == {"copied text": 5, "zero-shot": 5, "soft prompt": 5}
    assert capsys.readouterr().out.count("reference: ") == 2


def test_medical(settings, args, tmp_path, capsys):
    run("medical", args, **settings("mood"), example="A sore phone.")
    _, examples = report_of(tmp_path / "run")
    assert examples["soft prompt"] == 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "'A sore phone.' -> " in line]
    assert [line.partition(":")[0] for line in lines] == ["base model", "soft prompt"]


def test_multitask(settings, args, tmp_path, capsys):
    task = settings("repeat")
    run("multitask", args, **{**task, "task": [task["task"]]}, namespace="lab")
    _, examples = report_of(tmp_path / "run" / "repeat")
    assert examples["soft prompt"] == 5
    assert Hub().info("lab/repeat").task == "repeat"
    assert "\nrepeat: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["classification", "generation", "medical"])
def test_a_prefix_in_place_of_a_prompt(name, settings, args, tmp_path):
    task = "repeat" if name == "generation" else "mood"
    run(name, args, **settings(task), prompt_type="prefix")
    _, examples = report_of(tmp_path / "run")
    assert examples["prefix"] == 5 and "soft prompt" not in examples
    adapter = SoftPrompt.from_pretrained(tmp_path / "run" / "adapter")
    assert (adapter.prompt_type, adapter.num_virtual_tokens) == ("prefix", 4)


def test_a_prefix_for_each_task_and_one_for_all(settings, args, tmp_path):
    task = settings("repeat")
    config = {**task, "task": [task["task"]], "prompt_type": "prefix", "shared_steps": 1}
    run("multitask", args, **config, namespace="lab")
    _, examples = report_of(tmp_path / "run" / "repeat")
    assert examples["prefix"] == 5
    shared = SoftPrompt.from_pretrained(tmp_path / "run" / "shared" / "adapter")
    assert (shared.prompt_type, shared.num_virtual_tokens) == ("prefix", 4)
    assert Hub().info("lab/repeat").prompt_type == "prefix"


def test_compare(settings, args, tmp_path, capsys):
    methods = ["majority label", "zero-shot", "soft prompt"]
    config = {key: value for key, value in settings("mood").items() if key != "num_virtual_tokens"}
    run("compare", args, **config, methods=methods, seeds=[0], virtual_tokens=[2])
    assert "soft prompt, P = 2" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()
