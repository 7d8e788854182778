"""Run folders, as training leaves them, without training."""

import json
from types import SimpleNamespace

from softhub.adapter.manifest import RecordedMetric
from tests.prompts import MOOD, soft_prompt

BASE = SimpleNamespace(
    name="example/tiny", task_type="CAUSAL_LM", hidden_size=8, quantization=None, fingerprint=None
)
HISTORY = [
    {"step": 10, "loss": 0.9, "learning_rate": 0.01},
    {"step": 10, "eval_loss": 0.5, "eval_accuracy": 0.8},
    {"step": 20, "eval_loss": 0.4, "eval_accuracy": 0.9},
    {"step": 30, "eval_loss": 0.6, "eval_accuracy": 0.9},
]


def write_adapter(folder, *, seed=0, value=0.9, tokens=3, metrics=True, **provenance):
    whole = {
        "seed": seed,
        "init": "labels",
        "training": {"learning_rate": 0.01, "max_steps": 30},
        "dataset": {"train": {"examples": 4, "sha256": "a" * 64}},
        "code": {"commit": "b" * 40, "dirty": False},
        **provenance,
    }
    score = RecordedMetric("accuracy", value, value - 0.05, min(1.0, value + 0.05), "test", 40, {})
    scores = (score,) if metrics else ()
    prompt = soft_prompt(BASE, tokens, MOOD, seed=seed, provenance=whole, metrics=scores)
    return prompt.save_pretrained(folder)


def write_report(folder, **changes):
    record = {
        "rows": [{"name": "zero-shot"}, {"name": "soft prompt", "train_seconds": 90.0}],
        "config": {"task": "mood.yaml", "init": "labels"},
        "date": "2026-01-02T03:04:05+00:00",
        "training": {"steps": 30, "best_step": 20, "seconds": 120.0},
        "history": HISTORY,
        "warnings": [],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(record))


def write_checkpoint(folder, step, *, last=30, **changes):
    history = [logs for logs in HISTORY if logs["step"] <= step]
    state = {"global_step": step, "max_steps": last, "log_history": history, **changes}
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    (checkpoint / "training_args.bin").write_bytes(b"a pickle that nobody opens")


def write_run(folder, *, date="2026-01-02T03:04:05+00:00", report=(), **adapter):
    write_checkpoint(folder, 30)
    write_adapter(folder / "adapter", **adapter)
    write_report(folder, **{"date": date, **dict(report)})
