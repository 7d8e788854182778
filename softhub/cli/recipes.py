"""`softhub recipes`: list the recipes that come with softhub, and copy them to work on."""

import ast
import shutil
from pathlib import Path
from typing import Annotated

import typer

import softhub
from softhub.cli.help import Verb
from softhub.cli.options import JsonOption
from softhub.cli.output import emit, emit_json, emit_table
from softhub.config import expand_user
from softhub.errors import ConfigError
from softhub.experiments.console import note

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List and copy the recipes.")

# Downloaded data and compiled code are not copied.
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc", "files")


def recipes_folder() -> Path:
    """Return the folder of the recipes: in the installed package, or next to it in a git clone.

    Raises:
        ConfigError: Neither exists.
    """
    package = Path(softhub.__file__).parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        if (folder / "configs").is_dir():
            return folder
    raise ConfigError(
        f"The recipes are missing next to {package}; reinstall softhub, or run it from a git clone."
    )


def find_recipe(name: str) -> Path:
    """Return the script of a recipe.

    Args:
        name: Name of a recipe that comes with softhub, or the path of a `.py` file.

    Raises:
        ConfigError: There is no such recipe.
    """
    if name.endswith(".py"):
        script = expand_user(name)
        if script.is_file():
            return script
        raise ConfigError(f"There is no recipe at {name!r}; check the path.")
    known = {script.stem: script for script in _scripts()}
    if name in known:
        return known[name]
    raise ConfigError(
        f"There is no recipe {name!r}; expected one of {', '.join(known)}, or the path of a .py "
        "file (see softhub recipes list)."
    )


def _scripts() -> list[Path]:
    return sorted(recipes_folder().glob("*.py"))


def _files(folder: Path) -> list[str]:
    """Return the YAML files below a folder: first its own, then those of `hub/` and others."""
    found = [path.relative_to(folder) for path in folder.rglob("*.yaml")]
    return [path.as_posix() for path in sorted(found, key=lambda path: (len(path.parts), path))]


def _summary(script: Path) -> str:
    """Return the first line of the docstring, read without running the script."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[
        0
    ]


@app.command(
    "list", cls=Verb, epilog="\b\nExamples:\n  softhub recipes list\n  softhub recipes list --json"
)
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes with their configs and tasks."""
    folder = recipes_folder()
    record = {
        "folder": str(folder),
        "recipes": {script.stem: _summary(script) for script in _scripts()},
        "configs": _files(folder / "configs"),
        "tasks": _files(folder / "tasks"),
    }
    if as_json:
        emit_json(record)
        return
    rows = [("recipe", script.stem, _summary(script)) for script in _scripts()]
    for kind in ("config", "task"):
        rows += [(kind, name, f"{kind}s/{name}") for name in record[f"{kind}s"]]
    emit_table(("kind", "name", "description"), rows)


@app.command(
    "copy",
    cls=Verb,
    epilog="\b\nExamples:\n  softhub recipes copy\n  softhub recipes copy project/recipes",
)
def copy_recipes(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Target folder; must be new or empty.")
    ] = Path("recipes"),
) -> None:
    """Copy the recipes to a folder, to read and to change.

    Configs, tasks and data scripts are copied too.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{str(folder)!r} is not empty, and nothing is overwritten; name another folder."
        )
    if folder.is_file():
        raise ConfigError(f"{str(folder)!r} is a file; name a folder that is new or empty.")
    shutil.copytree(recipes_folder(), folder, ignore=_NOT_COPIED, dirs_exist_ok=True)
    config, data = folder / "configs" / "sentiment.yaml", folder / "data"
    note(
        f"next: read {config}, download its base model and data with: "
        f"python {data / 'demo_base.py'} && python {data / 'amazon_reviews.py'}, "
        f"then run: softhub train --config {config}"
    )
    emit(str(folder))
