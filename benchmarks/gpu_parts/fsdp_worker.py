"""Train the toy task with FSDP 2 in one process, as the launch file has it, and write the result.

Accelerate shards for accelerators alone, so in a dry run this CPU is presented to it as a GPU.
"""

import json
import os
import sys
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType

from gpu_parts.toy import train

LAUNCH_FILE = Path(__file__).parents[2] / "recipes/configs/accelerate/fsdp.yaml"


def present_cpu_as_gpu():
    plain = PartialState.__init__

    def state(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = state


def main(device, out):
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    for name, value in yaml.safe_load(LAUNCH_FILE.read_text())["fsdp_config"].items():
        # Accelerate hands true and false on in lower case, and names as they are.
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    if torch.device(device).type == "cpu":
        present_cpu_as_gpu()
    base, result = train(device)
    record = {
        "sharded": base.is_sharded,
        "dev_loss": result.best_score,
        "vectors": result.prompt.vectors.tolist(),
    }
    Path(out).write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
