"""recipes/multitask.py with its own configs and tasks, on tiny bases and a few made rows."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub import Hub, PromptModel, SoftPrompt, Task
from tests.command import Command

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = {
    "scratch_translations": [
        {"fr": f"Le {noun} est bon.", "en": f"The {noun} is good.", "de": f"Das {noun} ist gut."}
        for noun in ("chat", "mail", "phone", "screen")
    ],
    "docstrings/summaries": [
        {"name": f"get_{noun}", "text": f"The {noun} is given.", "summary": f"Return the {noun}."}
        for noun in ("cat", "mail", "phone", "screen")
    ],
    "docstrings/code": [
        {"prompt": f'def {noun}(x):\n    """Return x."""\n', "body": "    return x\n"}
        for noun in ("cat", "mail", "phone", "screen")
    ],
}
FEW_STEPS = {"max_steps": 2, "eval_steps": 1, "save_steps": 1, "use_cpu": True}


@pytest.fixture
def multitask(recipe: Command, tmp_path: Path) -> Callable[..., str]:
    """`multitask(config, base, **flags)`: what the recipe prints; it writes to `run`."""
    for folder in ("tasks", "configs"):
        shutil.copytree(RECIPES / folder, tmp_path / folder)
    for file in (tmp_path / "tasks").glob("*.yaml"):  # short answers are quick
        file.write_text(re.sub(r"max_new_tokens: \d+", "max_new_tokens: 4", file.read_text()))
    for name, rows in ROWS.items():
        folder = tmp_path / "data" / "files" / name
        folder.mkdir(parents=True)
        for split in ("train", "dev", "test"):
            lines = (json.dumps({**row, "group": f"{i}"}) for i, row in enumerate(rows))
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

    def run(name, base, **flags):
        few = {
            key: value
            for key, value in FEW_STEPS.items()
            if key != "max_steps" or "steps" not in flags
        }
        flags = {**few, "base_model": base, "base_name": "tests/tiny", **flags}
        flags |= {"output_dir": tmp_path / "run", "num_virtual_tokens": 3}
        words = [
            word
            for key, value in flags.items()
            for word in (f"--{key}", *(value if isinstance(value, list) else [value]))
        ]
        done = recipe("multitask", "--config", tmp_path / "configs" / f"{name}.yaml", *words)
        assert done.code == 0, done.err
        return done.out

    return run


@pytest.mark.slow
def test_three_prompts_are_trained_pushed_and_used_in_one_batch(multitask, tiny_base, tmp_path):
    out = multitask("multitask", tiny_base("llama"), steps=[1, 2, 1])
    names = ["translation", "summarization", "code"]
    model = PromptModel.from_pretrained(tiny_base("llama"), name="tests/tiny")
    for name, steps in zip(names, (1, 2, 1), strict=True):
        report = json.loads((tmp_path / "run" / name / "report.json").read_text())
        assert [row["name"] for row in report["rows"]] == [
            "copied text",
            "zero-shot",
            "soft prompt",
        ]
        assert max(logs["step"] for logs in report["history"]) == steps
        info = Hub().info(f"me/{name}")
        assert (info.task, info.task_kind) == (name, "generation")
        assert info.score is not None
        model.load_prompt(Hub().pull(f"me/{name}"), name=name)

    said = dict(line.split(": ", 1) for line in out.partition("One batch")[2].splitlines()[1:])
    for name in names:
        task = Task.from_file(tmp_path / "tasks" / f"{name}.yaml")
        (alone,) = model.generate([task.load("test")[0].row], prompt=name)
        assert said[name] == repr(alone)


@pytest.mark.slow
def test_prompts_start_from_a_shared_one_on_an_encoder_decoder(multitask, tiny_base, tmp_path):
    # Judged at the end alone: the first step is of rate 0, and its checkpoint the shared prompt.
    last = {"eval_steps": 2, "save_steps": 2}
    base = tiny_base("t5")
    multitask("multitask_t5", base, shared_steps=2, mixture="equal", namespace="lab", **last)
    shared = SoftPrompt.from_pretrained(tmp_path / "run" / "shared" / "adapter")
    assert shared.manifest.task is None
    assert set(shared.manifest.provenance["mixture"]) == {"translation", "summarization"}
    for name in ("translation", "summarization"):
        prompt = SoftPrompt.from_pretrained(Hub().pull(f"lab/{name}"))
        assert prompt.manifest.provenance["init"] == {"parent": dict(shared.manifest.files)}
        assert not prompt.vectors.equal(shared.vectors)
