"""Differences between revisions, and prompts that are alike."""

import struct
from pathlib import Path

import numpy as np
import pytest

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import CARD, CONFIG, WEIGHTS
from softhub.adapter.manifest import PrefixShape
from softhub.errors import InvalidAdapter
from softhub.hub import Hub
from softhub.hub.vectors import similarity
from tests.hub.adapters import adapter_files, config, plain_peft_files, safetensors, write
from tests.hub.conftest import MakeAdapter
from tests.hub.server import HubServer

REPO = "me/sentiment"


def prompt_folder(tmp_path: Path, name: str, rows: list[list[float]], base: str = "a/b") -> Path:
    files = plain_peft_files(base=base)
    body = struct.pack(f"<{len(rows) * len(rows[0])}f", *(x for row in rows for x in row))
    files[WEIGHTS] = safetensors("F32", [len(rows), len(rows[0])], body)
    shape = {b'"num_virtual_tokens": 4': len(rows), b'"token_dim": 32': len(rows[0])}
    for text, value in shape.items():
        name_of, _ = text.split(b":")
        files["adapter_config.json"] = files["adapter_config.json"].replace(
            text, name_of + b": %d" % value
        )
    return write(tmp_path / name, files)


def test_a_difference_tells_metrics_config_and_manifest(
    hub: Hub, make_adapter: MakeAdapter
) -> None:
    hub.push(make_adapter(1, score=0.7), REPO, tags=["v1"])
    hub.push(make_adapter(2, score=0.8, rows=6), REPO)
    difference = hub.diff(REPO, "v1")
    assert difference.metrics == {"accuracy (test)": (0.7, 0.8)}
    assert difference.config == {"num_virtual_tokens": (4, 6)}
    assert difference.manifest == {"num_virtual_tokens": (4, 6), "provenance.seed": (1, 2)}
    assert difference.vectors is None
    assert not difference.card_changed


def test_a_difference_measures_how_far_the_vectors_moved(hub: Hub, tmp_path: Path) -> None:
    hub.push(prompt_folder(tmp_path, "1", [[1.0, 0.0], [0.0, 2.0]]), REPO, tags=["v1"])
    hub.push(prompt_folder(tmp_path, "2", [[1.0, 0.0], [2.0, 0.0]]), REPO)
    shift = hub.diff(REPO, "v1").vectors
    assert shift is not None
    assert shift.relative_distance == pytest.approx((8 / 5) ** 0.5)
    assert shift.mean_cosine == pytest.approx(0.5)
    assert (shift.most_moved, shift.lowest_cosine) == (1, pytest.approx(0.0))


def test_a_revision_without_an_adapter_cannot_be_compared(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    first = server.seed(REPO, {"notes.txt": b"empty"}).id
    remote_hub.push(make_adapter(1), REPO)
    with pytest.raises(InvalidAdapter, match="has no adapter_model"):
        remote_hub.diff(REPO, first)


def test_a_changed_card_alone(hub: Hub, make_adapter: MakeAdapter) -> None:
    hub.push(make_adapter(1), REPO, tags=["v1"])
    hub.push(make_adapter(1, body="# New words\n"), REPO)
    difference = hub.diff(REPO, "v1")
    assert difference.card_changed
    assert difference.vectors is not None
    assert difference.vectors.relative_distance == 0
    assert not difference.config and not difference.manifest and not difference.metrics


def test_similar_prompts_of_the_same_base(hub: Hub, tmp_path: Path) -> None:
    hub.push(prompt_folder(tmp_path, "1", [[1.0, 0.0], [1.0, 0.1]]), "me/near")
    hub.push(prompt_folder(tmp_path, "2", [[0.0, 1.0]]), "me/far")
    hub.push(prompt_folder(tmp_path, "3", [[-1.0, 0.0]]), "me/opposite")
    hub.push(prompt_folder(tmp_path, "4", [[1.0, 0.0]], base="c/d"), "me/other-base")
    hub.push(prompt_folder(tmp_path, "5", [[1.0, 0.0, 0.0]]), "me/other-width")
    mine = prompt_folder(tmp_path, "6", [[3.0, 0.0]])
    ranked = hub.similar(mine)
    assert [info.repo_id for info, _ in ranked] == ["me/near", "me/far", "me/opposite"]
    assert [score for _, score in ranked] == pytest.approx([0.99875, 0.0, -1.0], abs=1e-4)
    assert [info.repo_id for info, _ in hub.similar("me/near", limit=1)] == ["me/far"]


def prefix_folder(tmp_path: Path, name: str, rows: list[list[float]]) -> Path:
    """A prefix of two layers with one number for each key and each value."""
    shape = PrefixShape(num_layers=2, num_key_value_heads=1, head_dim=1)
    body = struct.pack(f"<{4 * len(rows)}f", *(x for row in rows for x in row))
    files = {**plain_peft_files(), CONFIG: config(rows=len(rows), prefix=shape)}
    files[WEIGHTS] = safetensors("F32", [len(rows), 4], body)
    return write(tmp_path / name, files)


def test_the_largest_layer_does_not_decide_how_similar_prefixes_are(
    hub: Hub, tmp_path: Path
) -> None:
    mine = [[900.0, 1.0, -2.0, 3.0]]
    hub.push(prefix_folder(tmp_path, "1", [[1000.0, -1.0, 2.0, -3.0]]), "me/first-key")
    hub.push(prefix_folder(tmp_path, "2", [[-900.0, 2.0, -1.0, 2.5]]), "me/all-others")
    ranked = hub.similar(prefix_folder(tmp_path, "3", mine))
    assert [info.repo_id for info, _ in ranked] == ["me/all-others", "me/first-key"]
    assert [score for _, score in ranked] == pytest.approx([0.5, -0.5])
    hub.push(prefix_folder(tmp_path, "4", mine), REPO, tags=["v1"])
    hub.push(prefix_folder(tmp_path, "5", [[900.0, 2.0, -4.0, 6.0]]), REPO)
    shift = hub.diff(REPO, "v1").vectors
    assert shift is not None
    assert shift.relative_distance == pytest.approx((3 / 4) ** 0.5)
    assert shift.mean_cosine == pytest.approx(7 / (4 * 13) ** 0.5)


def test_a_layer_of_the_smallest_numbers_can_be_compared(hub: Hub, tmp_path: Path) -> None:
    """A float32 unit would be 0, and the quotient infinite."""
    tiny = [[1e-45, 1.0, 1.0, 1.0]]
    hub.push(prefix_folder(tmp_path, "1", tiny), REPO, tags=["v1"])
    ranked = hub.similar(prefix_folder(tmp_path, "2", [[3e38, 1.0, 1.0, 1.0]]))
    assert [score for _, score in ranked] == pytest.approx([1.0])
    hub.push(prefix_folder(tmp_path, "3", [[3e38, 1.0, 1.0, 1.0]]), REPO)
    shift = hub.diff(REPO, "v1").vectors
    assert shift is not None
    assert np.isfinite([shift.relative_distance, shift.mean_cosine]).all()


def test_similarity_is_the_cosine_of_the_mean_vectors() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(n, 8)).astype(np.float32) for n in (3, 5))
    x, y = a.mean(axis=0), b.mean(axis=0)
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert similarity(a, b) == pytest.approx(expected, abs=1e-6)


def test_a_prompt_is_like_itself_and_like_itself_in_another_order() -> None:
    a = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    assert similarity(a, a) == pytest.approx(1, abs=1e-6)
    assert similarity(a, a[::-1].repeat(2, axis=0)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_vectors_of_every_dtype(dtype: str) -> None:
    values = np.array([[1.0, -2.5], [0.0, 0.15625]], dtype=np.float32)
    body = {
        "F32": values.tobytes(),
        "F16": values.astype("<f2").tobytes(),
        "BF16": (values.view("<u4") >> 16).astype("<u2").tobytes(),
    }[dtype]
    adapter = Adapter({WEIGHTS: safetensors(dtype, [2, 2], body)}, "test")
    np.testing.assert_array_equal(adapter.vectors, values)


def test_a_leaderboard_shows_scored_adapters_best_first(
    hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    hub.push(make_adapter(1, score=0.7, datasets=["org/a"]), "me/one")
    hub.push(make_adapter(2, score=0.9, datasets=["org/b"]), "me/two")
    hub.push(make_adapter(3, task="triage", score=0.99), "me/three")
    assert [i.repo_id for i in hub.leaderboard("sentiment")] == ["me/two", "me/one"]
    assert [i.repo_id for i in hub.leaderboard("sentiment", dataset="org/a")] == ["me/one"]
    assert hub.leaderboard("sentiment", metric="bleu") == []


def test_deprecating_keeps_the_card(hub: Hub, tmp_path: Path) -> None:
    files = adapter_files(1, body="# Words of the author\n")
    hub.push(write(tmp_path / "a", files), REPO)
    hub.deprecate(REPO, reason="old")
    with pytest.warns(UserWarning, match="old"):
        card = (hub.pull(REPO, local_dir=tmp_path / "b") / CARD).read_text()
    assert "# Words of the author" in card
    assert "softhub_deprecated" in card
    hub.push(write(tmp_path / "c", adapter_files(2)), REPO)
    assert hub.info(REPO).deprecated is None
