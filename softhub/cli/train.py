"""`softhub train`: run a recipe with a config file through Accelerate."""

import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from softhub.cli.recipes import find_recipe
from softhub.experiments.console import INTERRUPTED


def train(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="Settings of the recipe, as YAML."
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="Name of a recipe, or path of a .py file.")
    ] = "classification",
) -> None:
    """Train a soft prompt by a recipe and its config file.

    Any other --key VALUE overrides a key of the config file; "-- --help" lists all keys.
    The recipe is run by Accelerate, with the settings that "accelerate config" saved.
    Ctrl-C saves a checkpoint; add --resume to continue from it.
    """
    arguments = [*(["--config", str(config)] if config else []), *context.args]
    raise typer.Exit(launch(find_recipe(recipe), arguments))


def launch(script: Path, arguments: list[str]) -> int:
    """Run `accelerate launch SCRIPT ARGUMENTS` and return the exit code of the script.

    The launcher itself ignores Ctrl-C: the script gets the same signal, saves a checkpoint and says
    so, and the launcher must not exit before it.

    Args:
        script: Path of the recipe.
        arguments: Command-line arguments of the recipe.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    # Without this the launcher gives the script a single thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        launch_command(launch_command_parser().parse_args([str(script), *arguments]))
    except subprocess.CalledProcessError as failed:
        return INTERRUPTED if interrupts else abs(failed.returncode)
    finally:
        signal.signal(signal.SIGINT, before)
    return 0
