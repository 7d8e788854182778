"""The check of a GPU runs whole on a CPU, so that nothing but the device is new."""

import importlib
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
QUICK = (
    *("training step, 1B", "prefill, 1B", "many prompts, 1B", "generate, 1B"),
    *("device settings, 1B", "checkpointing, 1B"),
)


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu_check")


@pytest.fixture
def machine(gpu_check):
    return gpu_check.Machine(torch.device("cpu"), tiny=True)


@pytest.fixture
def run(gpu_check, tmp_path, capsys):
    """`run(*flags)`: a dry run; its exit code, its record, and the lines of its table."""

    def dry_run(*flags):
        with pytest.raises(SystemExit) as finished:
            gpu_check.main(["--tiny", "--folder", str(tmp_path), *flags])
        (file,) = tmp_path.glob("*.json")
        assert file.name == "gpu_check-dry-run.json"
        return int(finished.value.code), json.loads(file.read_text()), capsys.readouterr().out

    return dry_run


@pytest.mark.parametrize(
    "names", [pytest.param(QUICK, id="quick"), pytest.param(None, id="all", marks=pytest.mark.slow)]
)
def test_a_dry_run_runs_the_parts_and_says_what_it_is(names, run, gpu_check, monkeypatch):
    wanted = [part for part in gpu_check.PARTS if names is None or part[0] in names]
    assert len(wanted) == len(names or gpu_check.PARTS)
    monkeypatch.setattr(gpu_check, "PARTS", wanted)
    code, record, shown = run("--minutes", "9")
    assert record["dry_run"] is True and record["device"] == "CPU"
    assert record["packages"]["torch"] == torch.__version__ and record["date"]
    assert list(record["parts"]) == [name for name, *_ in wanted]
    verdicts = {name: gpu_check.verdict(part) for name, part in record["parts"].items()}
    skipped = {name for name, verdict in verdicts.items() if verdict == "skipped"}
    assert skipped == {name for name in verdicts if "flash" in name}
    assert not {"failed", "FAILED"} & {*verdicts.values()}, shown
    assert code == 0 and "A dry run" in shown
    assert [line.split("  ")[0] for line in shown.splitlines()[: len(wanted)]] == [*verdicts]


def test_without_time_every_part_is_skipped_with_the_reason(run, gpu_check):
    code, record, _ = run("--minutes", "0")
    assert code == 0 and len(record["parts"]) == len(gpu_check.PARTS)
    assert all("s were left" in part["skipped"] for part in record["parts"].values())


def test_a_part_that_takes_too_long_is_cut_off(gpu_check, machine):
    def endless(machine):
        while True:
            pass

    assert "time was out" in gpu_check.run_part(machine, endless, 0, 0.2)["error"]


def test_a_part_that_fails_leaves_the_others(run, gpu_check, monkeypatch):
    def fails(machine):
        raise ValueError("found this")

    def works(machine):
        return {"passed": None, "summary": "measured"}

    monkeypatch.setattr(gpu_check, "PARTS", (("one", 0, fails), ("two", 0, works)))
    code, record, shown = run()
    assert code == 1
    assert record["parts"]["one"]["error"] == "ValueError: found this"
    assert record["parts"]["two"]["summary"] == "measured"
    assert "one  failed    ValueError: found this" in shown


def test_a_wrong_answer_is_found(gpu_check, machine, monkeypatch):
    from gpu_parts import exactness

    monkeypatch.setattr(exactness, "FAMILIES", ("llama",))
    scores = exactness.label_scores
    monkeypatch.setattr(exactness, "label_scores", lambda *args: 1.01 * scores(*args))
    found = exactness.exactness(machine, torch.float32, "sdpa")
    assert found["passed"] is False
    assert found["families"]["llama"]["wrong"][:2] == ["batch", "mixed prompts"]


def test_a_setting_changes_only_if_another_is_clearly_faster(gpu_check):
    from gpu_parts.settings import winner

    assert winner({True: 1.0, False: 0.99}, True) is True
    assert winner({True: 1.0, False: 0.9}, True) is False
    assert winner({64: None, 256: 2.0}, 64) == 256  # memory did not suffice for the default


def test_the_needed_products_are_those_of_a_packed_step(gpu_check, machine):
    """As torch counts them; it counts no attention on CPUs."""
    from gpu_parts.speed import needed_operations, own_step, products_with_weights
    from torch.utils.flop_counter import FlopCounterMode

    base, (tokens, rows, columns) = machine.llama("1B"), (20, 8, 48)
    step, _ = own_step(machine, base, tokens, rows, columns)
    with FlopCounterMode(display=False) as counter:
        step()
    products = products_with_weights(base, tokens + rows * (columns - 1), rows)
    # Transformers 5.18 computes rotary angles by a batched product, later releases do not.
    angles = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
    assert counter.get_total_flops() - angles == products
    assert products < needed_operations(base, tokens, rows, columns) < 1.5 * products


def test_the_demo_is_compared_with_the_interval_in_the_readme(gpu_check):
    from gpu_parts.training import DEMO_ACCURACY

    low, high = (f"{100 * end:.1f}" for end in DEMO_ACCURACY)
    rows = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = (each for each in rows if each.startswith("soft prompt "))
    assert row.split()[3] == f"({low}-{high})"
