"""Two processes take the same steps as one, for the same examples a step."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]


FSDP = yaml.safe_load((ROOT / "recipes/configs/accelerate/fsdp.yaml").read_text())["fsdp_config"]

WRITING = """\
name: write
kind: generation
dataset:
  data_files: {train: ./rows.jsonl, dev: ./rows.jsonl, test: ./rows.jsonl}
text_column: text
target_column: target
template: "{text}\\nIn a word:"
generation: {max_new_tokens: 6}
hard_templates: ["{text}"]
metrics: [chrf]
"""


def start(script, processes, *arguments, **environment):
    alone = [sys.executable]
    torchrun = [*alone, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launcher = torchrun if processes == 2 else alone
    return subprocess.run(
        [*launcher, "-m", f"tests.training.{script}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )


def run(tmp_path, base, processes, per_device, class_weights, *others, **environment):
    tmp_path.mkdir(exist_ok=True)
    out = tmp_path / f"{processes}.json"
    settings = (per_device, class_weights, *others)
    done = start("run_distributed", processes, base, out, *settings, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"  # of all processes the first alone has a stdout
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_base):
    """`alone(class_weights)`: the run of one process, made once."""
    folder = tmp_path_factory.mktemp("alone")
    return cache(lambda name: run(folder / name, tiny_base("llama"), 1, 8, name))


@pytest.fixture(scope="module")
def sharding():
    """The launch file's own settings, as Accelerate hands them on in the environment."""
    settings = {key.upper(): str(value).lower() for key, value in FSDP.items()}
    settings["FSDP_AUTO_WRAP_POLICY"] = FSDP["fsdp_auto_wrap_policy"]
    settings["FSDP_STATE_DICT_TYPE"] = FSDP["fsdp_state_dict_type"]
    return {"ACCELERATE_USE_FSDP": "true", **settings}


@pytest.mark.slow
def test_two_processes_train_a_prefix_that_ends_by_itself_as_one_does(tmp_path, tiny_base):
    settings = ("none", "adamw_torch", "prefix")
    one, two = (
        run(tmp_path, tiny_base("llama"), processes, 8 // processes, *settings)
        for processes in (1, 2)
    )
    assert (one["processes"], two["processes"]) == (1, 2)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(two["vectors"], one["vectors"], rtol=1e-2, atol=1e-4)
    assert one["ended"] == two["ended"] and "auto_max_steps is 6" in one["ended"]


@pytest.mark.slow
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_two_processes_give_the_same_curve_as_one(class_weights, alone, tmp_path, tiny_base):
    one = alone(class_weights)
    two = run(tmp_path, tiny_base("llama"), 2, 4, class_weights)
    assert (one["processes"], two["processes"]) == (1, 2)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(two["dev"], one["dev"], rtol=1e-4)
    np.testing.assert_allclose(two["vectors"], one["vectors"], atol=1e-4)


@pytest.mark.slow
def test_two_processes_go_on_with_the_batches_that_are_next(tmp_path, tiny_base):
    """From the middle of the second epoch, whose order is another one than the first's."""
    settings = (tmp_path, tiny_base("llama"), 2, 8, "none")
    whole = run(*settings)
    shutil.rmtree(tmp_path / "2.json-run" / "checkpoint-6")
    resumed = run(*settings, RESUME="1")
    assert resumed["losses"] == whole["losses"]
    assert resumed["vectors"] == whole["vectors"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", ["false", "true"])
def test_a_sharded_base_trains_and_answers_as_a_whole_one(
    checkpointed, alone, sharding, tmp_path, tiny_base
):
    one = alone("none")
    settings = {**sharding, "FSDP_ACTIVATION_CHECKPOINTING": checkpointed}
    two = run(tmp_path, tiny_base("llama"), 2, 4, "none", **settings)
    assert (one["sharded"], two["sharded"]) == (False, True)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(two["vectors"], one["vectors"], atol=1e-4)
    np.testing.assert_allclose(two["probabilities"], one["probabilities"], atol=1e-4)


@pytest.mark.slow
def test_the_average_of_a_run_that_ends_by_itself_is_sharded_too(sharding, tmp_path, tiny_base):
    settings = ("none", "adamw_torch", "auto")
    one = run(tmp_path, tiny_base("llama"), 1, 8, *settings)
    two = run(tmp_path, tiny_base("llama"), 2, 4, *settings, **sharding)
    assert (one["sharded"], two["sharded"], two["ended"]) == (False, True, one["ended"])
    np.testing.assert_allclose(two["dev"], one["dev"], rtol=1e-4)
    np.testing.assert_allclose(two["vectors"], one["vectors"], atol=1e-4)
    np.testing.assert_allclose(two["probabilities"], one["probabilities"], atol=1e-4)


@pytest.mark.slow
def test_adafactor_is_refused_where_the_base_is_sharded(sharding, tmp_path, tiny_base):
    out = tmp_path / "out.json"
    settings = (tiny_base("llama"), out, 4, "none", "adafactor")
    done = start("run_distributed", 2, *settings, **sharding)
    assert done.returncode != 0
    assert "optim='adafactor' is not supported under FSDP" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_sharded_base_writes_what_a_whole_one_writes(sharding, tmp_path, tiny_base):
    """By the recipe: every process has to judge, for each holds a part of the base."""
    rows = [{"text": f"great value number {n}", "target": "easy love"} for n in range(8)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "task.yaml").write_text(WRITING)
    flags = {
        "task": tmp_path / "task.yaml",
        "base_model": tiny_base("llama"),
        "num_virtual_tokens": 4,
        "max_steps": 1,
        "eval_steps": 1,
        "save_steps": 1,
        "max_restarts": 0,
        "use_cpu": "true",
    }
    reports = []
    for processes, per_device, environment in ((1, 4, {}), (2, 2, sharding)):
        folder = tmp_path / f"run-{processes}"
        own = {"output_dir": folder, "per_device_train_batch_size": per_device}
        options = [f"--{key}={value}" for key, value in {**flags, **own}.items()]
        recipe = ROOT / "recipes" / "generation.py"
        done = start("run_recipe", processes, recipe, *options, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        reports.append((done.stdout, json.loads((folder / "report.json").read_text())))
    (alone, one), (sharded, two) = reports
    assert two["rows"][-1]["name"] == "soft prompt"
    scores = [[row["metrics"] for row in report["rows"]] for report in (one, two)]
    assert scores[0] == scores[1]
    examples = [text.split("write on")[0] for text in (alone, sharded)]  # the table has times
    assert examples[0] == examples[1] and examples[0].count("answer:") == 3
