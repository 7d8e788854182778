"""Run a recipe; with ACCELERATE_USE_FSDP its base is sharded over CPU processes."""

import os
import runpy
import sys

from tests.training.run_distributed import call_cpus_gpus

if __name__ == "__main__":
    if "ACCELERATE_USE_FSDP" in os.environ:
        call_cpus_gpus()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
