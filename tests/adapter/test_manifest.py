import dataclasses
import json
from typing import Any

import pytest

from softhub.adapter import manifest as manifest_module
from softhub.adapter.manifest import (
    MIGRATIONS,
    Manifest,
    PrefixShape,
    RecordedMetric,
    check_task,
)
from softhub.adapter.portable import (
    UNKNOWN_BASE,
    is_hub_name,
    portable_base_name,
    without_local_paths,
)
from softhub.errors import InvalidAdapter, TaskError
from softhub.tasks import Task
from tests.hostile.sound import manifest, metric_record


def test_survives_the_way_through_its_bytes() -> None:
    original = manifest()
    assert Manifest.from_bytes(original.to_bytes()) == original


def test_bytes_are_canonical_json() -> None:
    data = manifest().to_bytes()
    record = json.loads(data)
    assert data == (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()
    assert record["schema_version"] == 2


def test_equal_manifests_give_equal_bytes_whatever_the_order_of_keys() -> None:
    one = manifest(provenance={"seed": 0, "config": {"lr": 0.02, "batch": 8}})
    other = manifest(provenance={"config": {"batch": 8, "lr": 0.02}, "seed": 0})
    assert one.to_bytes() == other.to_bytes()


def test_other_languages_are_written_as_they_are_read() -> None:
    data = manifest(task={"template": "Überprüfung: {text} 感情は"}).to_bytes()
    assert "Überprüfung: {text} 感情は".encode() in data


def test_the_order_of_labels_survives_sorted_keys() -> None:
    words = [{"label": label, "words": [label]} for label in ("z", "a", "m")]
    task = Manifest.from_bytes(manifest(task={"verbalizer": words}).to_bytes()).task
    assert task is not None
    assert [entry["label"] for entry in task["verbalizer"]] == ["z", "a", "m"]


def test_too_large_a_manifest_is_not_written() -> None:
    with pytest.raises(InvalidAdapter, match="limit is 262144"):
        manifest(provenance={str(i): "x" * 60_000 for i in range(5)}).to_bytes()


def with_labels(count: int, **fields: Any) -> Task:
    labels = [f"abnormality of the {n:04d} nervous system and eye" for n in range(count)]
    return Task(template="Finding: {text}\nOrgan:", labels=labels, **fields)


def test_a_task_that_a_manifest_has_no_room_for_is_refused_before_training() -> None:
    with pytest.raises(TaskError, match=r"cannot be saved .* bytes .*; shorten its labels"):
        check_task(with_labels(1400))
    with pytest.raises(TaskError, match=r"cannot be saved .* bytes .*; shorten its labels"):
        check_task(with_labels(1300, class_weights="balanced"))


@pytest.mark.parametrize(("labels", "weights"), [(1300, None), (900, "balanced")])
def test_a_task_that_is_not_refused_fits_with_its_provenance(
    labels: int, weights: str | None
) -> None:
    task = with_labels(labels, class_weights=weights)
    check_task(task)
    shares = dict.fromkeys(task.verbalizer.labels if task.verbalizer else (), 1 / 3)
    training = {"class_weights": shares if weights else None, "log": "x" * 20_000}
    data = manifest(task=task.to_record(), provenance={"training": training}).to_bytes()
    assert len(data) > 230_000


def test_a_task_whose_record_a_manifest_refuses_is_refused_before_training() -> None:
    task = Task(template="Text: {text}\nAnswer:", labels=["yes", "don\x92t know"])
    with pytest.raises(TaskError, match=r"cannot be saved .* control characters: 'don\\x92t"):
        check_task(task)
    with pytest.raises(InvalidAdapter, match=r"control characters: 'don\\x92t"):
        manifest(task=task.to_record())


def test_a_manifest_of_an_older_schema_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_first(record: dict[str, Any]) -> dict[str, Any]:
        base_model = record.pop("model")
        return {**record, "base_model": base_model}

    monkeypatch.setattr(manifest_module, "MIGRATIONS", {**MIGRATIONS, 0: to_first})
    record = json.loads(manifest().to_bytes())
    record["model"] = record.pop("base_model")
    record["schema_version"] = 0
    assert Manifest.from_bytes(json.dumps(record).encode()) == manifest()


def test_a_manifest_of_version_1_is_that_of_a_prompt() -> None:
    record = json.loads(manifest().to_bytes())
    assert record.pop("prefix") is None
    assert Manifest.from_bytes(json.dumps({**record, "schema_version": 1}).encode()) == manifest()


def test_a_prefix_is_written_and_read_with_its_shape() -> None:
    shape = PrefixShape(num_layers=30, num_key_value_heads=3, head_dim=64)
    original = manifest(hidden_size=None, prefix=shape)
    assert (original.prompt_type, original.width) == ("prefix", 30 * 2 * 3 * 64)
    assert Manifest.from_bytes(original.to_bytes()) == original
    assert (manifest().prompt_type, manifest().width) == ("prompt", manifest().hidden_size)


def test_an_older_schema_without_a_migration_is_refused() -> None:
    record = {**json.loads(manifest().to_bytes()), "schema_version": 0}
    with pytest.raises(InvalidAdapter, match="schema_version"):
        Manifest.from_bytes(json.dumps(record).encode())


def test_a_newer_schema_asks_for_an_upgrade_before_its_keys_are_judged() -> None:
    with pytest.raises(InvalidAdapter, match="Upgrade softhub"):
        Manifest.from_bytes(b'{"schema_version": 3, "something": "new"}')


def test_numbers_without_a_point_are_numbers() -> None:
    metric = RecordedMetric(**metric_record(value=1, low=0, high=1))
    again = Manifest.from_bytes(manifest(metrics=(metric,)).to_bytes()).metrics[0]
    assert again == metric


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model", "/models/base"),
        ("task_type", "SEQ_CLS"),
        ("num_virtual_tokens", 0),
        ("num_virtual_tokens", 100_001),
        ("hidden_size", True),
        ("base_revision", ""),
        ("base_revision", "a\nb"),
        ("license", "x" * 257),
        ("softhub_version", 1),
        ("provenance", {"when": object()}),
        ("provenance", {"loss": float("nan")}),
        ("provenance", {1: "a number as key"}),
        ("fingerprint", ["llama"]),
        ("task", {"name": "two\nlines"}),
        ("metrics", [RecordedMetric(**metric_record())]),
        ("metrics", (metric_record(),)),
        ("files", {"README.md": "0" * 64}),
        ("files", {"adapter_config.json": "0" * 63}),
        ("schema_version", 1),
        ("hidden_size", None),
        ("prefix", PrefixShape(2, 1, 2)),  # beside a hidden size
    ],
)
def test_a_manifest_is_checked_when_it_is_made(field: str, value: object) -> None:
    with pytest.raises(InvalidAdapter, match=r"softhub\.json|base_model"):
        dataclasses.replace(manifest(), **{field: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"value": float("inf")},
        {"low": 0.9, "high": 0.8},
        {"examples": 1.5},
        {"baselines": None},
        {"baselines": {"": 0.5}},
        {"name": ""},
    ],
)
def test_a_metric_is_checked_when_it_is_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidAdapter):
        RecordedMetric(**metric_record(**changes))


@pytest.mark.parametrize(
    "name", ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "_x/y_", "t5-v1_1.base"]
)
def test_names_of_the_hub_pass(name: str) -> None:
    assert is_hub_name(name)
    assert portable_base_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", "a/b/c", ".a", "a.", "-a", "a..b", "~/a", "a b", "a\n", "ä/b"],
)
def test_other_names_do_not(name: str) -> None:
    assert not is_hub_name(name)


@pytest.mark.parametrize(
    ("local", "portable"),
    [
        ("/home/me/models/tiny-llama", "tiny-llama"),
        ("/home/me/models/tiny-llama/", "tiny-llama"),
        ("..\\models\\tiny-llama", "tiny-llama"),
        ("C:\\models\\tiny-llama", "tiny-llama"),
        ("./runs/base", "base"),
        ("/c/hub/models--org--name/snapshots/0123abc", "org/name"),
        ("/c/hub/models--org--na-me--x/snapshots/0123abc/", "org/na-me--x"),
        ("/", UNKNOWN_BASE),
        ("", UNKNOWN_BASE),
        ("/models/my base", UNKNOWN_BASE),
        (None, UNKNOWN_BASE),
        (["a"], UNKNOWN_BASE),
    ],
)
def test_a_local_path_gives_the_name_that_the_base_has_elsewhere(
    local: object, portable: str
) -> None:
    assert portable_base_name(local) == portable


def test_local_paths_are_cut_to_their_last_part_and_nothing_else_changes() -> None:
    record = {
        "dataset": {"data_files": {"train": "/home/me/data/train.jsonl", "dev": "data/dev.jsonl"}},
        "argv": ["--out", "~/runs/7", "C:\\Users\\me\\x.csv", "file:///etc/hosts"],
        "id": "org/reviews",
        "text": "and/or 3/4, see https://example.org/a",
        "seed": 0,
        "nothing": None,
    }
    assert without_local_paths(record) == {
        **record,
        "dataset": {"data_files": {"train": "train.jsonl", "dev": "data/dev.jsonl"}},
        "argv": ["--out", "7", "x.csv", "hosts"],
    }
