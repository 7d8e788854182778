"""How many processes were asked for, and how many run."""

import os

from softhub.cli.output import say


def warn_of_missing_processes() -> None:
    """Say it where Accelerate's launcher was asked for more processes than it started.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing. It passes the
    number on to nobody, so it is read off the launcher's own command line.
    """
    running = int(os.environ.get("WORLD_SIZE", "1"))
    asked = _asked_of(_parent())
    if asked is not None and asked > running and os.environ.get("RANK", "0") == "0":
        say(
            f"warning: {asked} processes were asked for and {running} runs. On CPUs use "
            f"`torchrun --nproc-per-node {asked} RECIPE`; with GPUs add --multi_gpu."
        )


def _asked_of(command: list[str]) -> int | None:
    """The number in `accelerate launch --num_processes N recipe.py`; None if there is none."""
    if "launch" not in command:
        return None
    words = command[command.index("launch") :]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.endswith(".py"):  # what comes after it is the recipe's own
            return None
        name, _, value = word.partition("=")
        if name.replace("-", "_") == "__num_processes":
            number = value or following
            return int(number) if number.isdigit() else None
    return None


def _parent() -> list[str]:
    """Command line of the process that started this one; empty where it cannot be seen."""
    import psutil  # which Accelerate needs

    try:
        parent = psutil.Process().parent()
        return list(parent.cmdline()) if parent else []
    except psutil.Error:
        return []
