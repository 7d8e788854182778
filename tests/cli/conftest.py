"""An adapter to run the command on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softhub.adapter.manifest import Manifest, RecordedMetric
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template, Verbalizer

SENTIMENT = Task(
    name="sentiment",
    kind="classification",
    template=Template("Review: {text} Sentiment:"),
    verbalizer=Verbalizer.from_mapping({"positive": " good", "negative": [" bad", " waste"]}),
)
SUMMARY = Task(
    name="summary",
    kind="generation",
    template=Template("Text: {text} Summary:"),
    generation={"max_new_tokens": 4},
)
BASELINES = {"majority": 0.6, "zero-shot": 0.88}
ACCURACY = RecordedMetric("accuracy", 0.93, 0.9, 0.96, "test", 300, BASELINES)


@pytest.fixture
def base(tiny_base: Callable[[str], Path]) -> Path:
    """Folder of the tiny Llama."""
    return tiny_base("llama")


MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(base: Path, tmp_path: Path) -> MakeAdapter:
    """Write an adapter for the tiny Llama: `make_adapter(task=…, seed=…)`."""

    def make(task: Task | None = SENTIMENT, seed: int = 0, **changes: object) -> Path:
        model = load_base(base)
        vectors = torch.randn(5, model.hidden_size, generator=torch.Generator().manual_seed(seed))
        fields = {
            "base_model": "example/tiny-llama",
            "task_type": model.task_type,
            "num_virtual_tokens": 5,
            "hidden_size": model.hidden_size,
            "base_revision": None,
            "base_quantization": None,
            "fingerprint": model.fingerprint,
            "task": task.to_record() if task else None,
            "provenance": {"seed": seed},
            "metrics": (ACCURACY,),
            "license": "apache-2.0",
            "files": {},
            "softhub_version": "0.1.0",
        }
        manifest = Manifest(**{**fields, **changes})
        return SoftPrompt(vectors, manifest).save_pretrained(tmp_path / f"adapter-{seed}")

    return make


@pytest.fixture
def adapter(make_adapter: MakeAdapter) -> Path:
    """A sentiment adapter."""
    return make_adapter()
