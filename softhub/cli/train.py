"""`softhub train`: a recipe with a config, run through Accelerate."""

import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from softhub.cli import INTERRUPTED
from softhub.cli.recipes import find_recipe


def train(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="The recipe's settings, as YAML."
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="A recipe's name, or the path of a .py file.")
    ] = "classification",
) -> None:
    """Train a soft prompt: a recipe's config, by Accelerate.

    Any other --key VALUE overrides the config's key, or stands for it; "-- --help" shows all keys.
    Accelerate's own settings (number of processes, precision) are what "accelerate config" saved.
    Ctrl-C leaves a run that can be resumed.
    """
    arguments = [*(["--config", str(config)] if config else []), *context.args]
    if not arguments:
        raise typer.BadParameter("give --config FILE, or the recipe's keys (-- --help shows them)")
    raise typer.Exit(launch(find_recipe(recipe), arguments))


def launch(script: Path, arguments: list[str]) -> int:
    """Do what `accelerate launch SCRIPT ARGUMENTS` does, and return the script's exit code.

    The launcher itself takes no notice of Ctrl-C: the script gets the same signal, saves its state
    and says so, and the launcher must not leave before it.

    Args:
        script: The recipe.
        arguments: Its command line.
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
