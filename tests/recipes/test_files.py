"""Every task, config and launch file in recipes/: parsed, and dry-run on made rows."""

import json
import os
import runpy
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import yaml

from softhub import Hub, PromptModel, Task
from softhub.adapter.layout import FILES
from softhub.evaluation.evaluate import evaluate
from tests.recipes.dry_run import RECIPES, recipe_of
from tests.recipes.hub_datasets import hub_datasets
from tests.references import target_nll
from tests.tasks.datasets_server import serve

pytestmark = pytest.mark.filterwarnings("ignore:an interval over")  # made rows are few

ROOT = RECIPES.parent
TASKS = sorted((RECIPES / "tasks").rglob("*.yaml"))
LAUNCHES = sorted((RECIPES / "configs" / "accelerate").rglob("*.yaml"))
CONFIGS = sorted(set((RECIPES / "configs").rglob("*.yaml")) - set(LAUNCHES))
HUB_TASKS = [path for path in TASKS if path.parent.name == "hub"]
HUB_CONFIGS = [path for path in CONFIGS if path.parent.name == "hub"]


def named(path):
    return path.relative_to(RECIPES).as_posix()


def test_every_file_is_known_and_counted():
    """A new file belongs in a count here, and so under the tests below."""
    assert (len(TASKS), len(HUB_TASKS)) == (21, 9)
    assert (len(CONFIGS), len(HUB_CONFIGS)) == (22, 7)
    assert len(LAUNCHES) == 4
    data = RECIPES / "data"
    found = [p for p in RECIPES.rglob("*.y*ml") if data not in p.parents]
    assert sorted(found) == sorted([*TASKS, *CONFIGS, *LAUNCHES])


@pytest.mark.parametrize("path", [*HUB_TASKS, *HUB_CONFIGS, *LAUNCHES], ids=named)
def test_what_was_never_run_says_so_at_the_top(path):
    top = path.read_text(encoding="utf-8").splitlines()[:3]
    assert any(line.startswith("# Not yet run for real: ") for line in top)


# --- configs ---


class Parsed(Exception):
    """Stops a recipe when it has read its config."""


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_config_is_read_by_its_recipe(path, monkeypatch, tmp_path):
    from softhub.config import parse_config

    def parse(*settings, **options):
        raise Parsed(parse_config(*settings, **options))

    monkeypatch.setattr("softhub.experiments.recipe.parse_config", parse)
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(path), "--use_cpu", "true"])
    monkeypatch.chdir(tmp_path)  # paths in a config hold from anywhere
    with pytest.raises(Parsed) as parsed:
        runpy.run_path(str(recipe_of(path)), run_name="__main__")
    settings, args = parsed.value.args[0]
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    files = [value for value in _texts(written) if value.startswith("../")]
    assert files
    for file in files:
        assert (path.parent / file).is_file() or "/data/files/" in file, file
    assert settings.base_model
    assert args.output_dir == written["output_dir"]
    assert args.load_best_model_at_end  # so save_steps is a multiple of eval_steps


def _texts(value):
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in _texts(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("path", LAUNCHES, ids=named)
def test_accelerate_takes_every_launch_file(path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(path))  # refuses unknown keys
    command = ["--config_file", str(path), "recipes/classification.py", "--config", "my.yaml"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert args.training_script == "recipes/classification.py"
    assert args.training_script_args == ["--config", "my.yaml"]
    assert (args.num_processes, args.mixed_precision) == (config.num_processes, "bf16")
    kinds = {
        "one_gpu": "NO",
        "multi_gpu": "MULTI_GPU",
        "fsdp": "FSDP",
        "deepspeed_zero3": "DEEPSPEED",
    }
    assert config.distributed_type == kinds[path.stem]
    assert (args.use_fsdp, args.use_deepspeed) == (path.stem == "fsdp", "zero3" in path.stem)
    known = {action.dest for action in launch_command_parser()._actions}
    assert {key for key in config.fsdp_config or {} if key not in known} == set()


# --- tasks ---


def try_out(model, task, examples):
    """Feed examples as training, judging and the zero-shot baselines do."""
    for template in (task.template, *task.hard_templates):
        asked = replace(task, template=template)
        if task.kind == "generation":
            assert target_nll(model, asked, examples) > 0
        else:
            assert len(evaluate(model, asked, examples).predictions) == len(examples)


@pytest.fixture(scope="module")
def model(tiny_base):
    return PromptModel.from_pretrained(tiny_base("llama"))


LOCAL_TASKS = [path for path in TASKS if path not in HUB_TASKS]


@pytest.mark.parametrize("path", LOCAL_TASKS, ids=named)
def test_every_local_task_reads_rows_of_its_columns(path, model, tmp_path):
    task = Task.from_file(path)
    assert "test" in task.dataset.data_files
    assert f"{task.dataset.prepare}".startswith("python recipes/data/")
    assert (ROOT / task.dataset.prepare.split()[1]).is_file()
    columns = {task.text_column, task.target_column, task.group_column, task.code_column}
    columns |= {task.test_column, *(c for t in task.hard_templates for c in t.columns)}
    row = dict.fromkeys(columns - {None}, "some words")
    if task.verbalizer:
        row[task.label_column] = next(iter(task.label_map or task.verbalizer.labels))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    files = {"test": str(tmp_path / "rows.jsonl")}
    made = replace(task, dataset=replace(task.dataset, data_files=files))
    try_out(model, made, made.load("test"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Environment of a process that finds the Hub's datasets on the loopback."""
    server = serve(hub_datasets())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
import json, sys
from softhub import Task
for path in sys.argv[1:]:
    task = Task.from_file(path)
    read = {split: task.load(split, limit=4) for split in ("train", "dev", "test")}
    print(json.dumps({split: [vars(e) for e in examples] for split, examples in read.items()}))
"""


@pytest.mark.slow
def test_every_hub_task_reads_the_columns_of_its_card(hub, model):
    from softhub.tasks import Example

    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, HUB_TASKS)], env=hub, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(HUB_TASKS)
    for path, line in zip(HUB_TASKS, lines, strict=True):
        splits = {
            split: [Example(**example) for example in examples]
            for split, examples in json.loads(line).items()
        }
        assert all(splits.values()), path
        try_out(model, Task.from_file(path), splits["test"])


@pytest.mark.slow
def test_every_hub_config_runs_through_its_recipe(hub, tiny_base, tmp_path):
    command = [sys.executable, "-m", "tests.recipes.dry_run", str(tiny_base("llama"))]
    done = subprocess.run(
        [*command, str(tmp_path), *map(str, HUB_CONFIGS)],
        cwd=tmp_path,
        env=hub,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pushed = Hub(hub["SOFTHUB_HUB"]).list()
    assert {prompt.repo_id for prompt in pushed} == {"me/mbpp", "me/translate-de-en", "me/xsum"}
    for config in HUB_CONFIGS:
        adapters = [path.parent for path in (tmp_path / config.stem).rglob("softhub.json")]
        assert adapters, config
        assert all({p.name for p in folder.iterdir()} == set(FILES) for folder in adapters)
