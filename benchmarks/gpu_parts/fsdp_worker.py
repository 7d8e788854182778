"""Train the toy task with FSDP 2 in one process, and write what it learned.

Accelerate shards for accelerators alone, so in a dry run this CPU is presented to it as a GPU.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from gpu_parts.toy import train


def present_cpu_as_gpu():
    plain = PartialState.__init__

    def state(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = state


def main(device, out):
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
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
