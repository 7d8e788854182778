"""Two processes take the same steps as one, for the same examples a step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


def run(tmp_path, base, processes, per_device, reparameterization):
    out = tmp_path / f"{processes}.json"
    alone = [sys.executable]
    torchrun = [*alone, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        *(torchrun if processes == 2 else alone),
        "-m",
        "tests.unit.training.run_distributed",
    ]
    done = subprocess.run(
        [*command, str(base), str(out), str(per_device), reparameterization],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("reparameterization", ["none", "residual"])  # the latter: weighted too
def test_two_processes_give_the_same_curve_as_one(reparameterization, tmp_path, tiny_base):
    one = run(tmp_path, tiny_base("llama"), 1, 8, reparameterization)
    two = run(tmp_path, tiny_base("llama"), 2, 4, reparameterization)
    assert (one["processes"], two["processes"]) == (1, 2)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(two["dev"], one["dev"], rtol=1e-4)
    np.testing.assert_allclose(two["vectors"], one["vectors"], atol=1e-4)
