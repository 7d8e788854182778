"""Try the files of recipes/ on a tiny base and made rows.

    python -m tests.recipes.dry_run BASE OUTPUT CONFIG...

runs each config's recipe for one step. It is a process of its own where rows come from a loopback
server, because `datasets` reads HF_ENDPOINT when it is imported.
"""

import re
import runpy
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "dtype": "float32",
    "max_steps": 1,
    "eval_steps": 1,
    "save_steps": 1,
    "num_virtual_tokens": 4,
    "max_train_examples": 8,
    "max_dev_examples": 2,
    "max_test_examples": 2,
    "per_device_train_batch_size": 4,
    "use_cpu": "true",
}


def recipe_of(config):
    """The recipe that a config is for: one of them names the other, or so does the file's name."""
    said = re.search(r"recipes/(\w+)\.py --config", config.read_text(encoding="utf-8"))
    if said:
        return RECIPES / f"{said[1]}.py"
    for script in sorted(RECIPES.glob("*.py")):
        if f"configs/{config.name}" in script.read_text(encoding="utf-8"):
            return script
    return RECIPES / f"{config.stem.partition('_')[0]}.py"


def main(base, output, *configs):
    for config in map(Path, configs):
        folder = Path(output) / config.stem
        settings = {**SMALL, "base_model": base, "output_dir": folder}
        flags = [f"--{key}={value}" for key, value in settings.items()]
        sys.argv = [str(recipe_of(config)), "--config", str(config), *flags]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
