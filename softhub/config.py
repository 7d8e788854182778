"""Location of softhub's files, and parsing of YAML files and flags into typed settings."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from softhub.errors import ConfigError


def softhub_home() -> Path:
    """Return the folder of the local hub and converted bases: `$SOFTHUB_HOME` or `~/.softhub`.

    Raises:
        ConfigError: There is no home folder, or the variable names one that cannot be found.
    """
    return full_path(os.environ.get("SOFTHUB_HOME") or "~/.softhub")


def expand_user(path: str | Path) -> Path:
    """Return a path with the home folder in place of a leading `~` or `~user`.

    Raises:
        ConfigError: That home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"Cannot find the home folder that {str(path)!r} begins with: HOME is not set and this "
            "user id has no account, or there is no such user. Write the full path, or set HOME "
            "(or SOFTHUB_HOME, for softhub's own files)."
        ) from error


def full_path(path: str | Path) -> Path:
    """Return a path with its home folder expanded, and absolute; links are not resolved.

    Raises:
        ConfigError: The home folder is unknown, or the working folder was deleted.
    """
    try:
        return expand_user(path).absolute()
    except FileNotFoundError as error:
        raise ConfigError(
            f"Cannot find {str(path)!r}, because the working folder was deleted. Change to a "
            "folder that exists, or write the full path."
        ) from error


def parse_config(
    *settings: Any, default: Path | None = None, argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Read `--config file.yaml` and `--key value` flags into dataclasses.

    The keys of the file are turned into flags before the real ones, so that types, defaults and
    unknown keys are treated alike, and a flag overrides the file. (A YAML reader alone would leave
    `1e-4` a string.) A value in the file that begins with `./` or `../` is a path relative to the
    file. Flags may be written with dashes or underscores.

    Args:
        settings: Dataclasses whose fields are the known keys, e.g. a recipe's own and
            `PromptTrainingArguments`.
        default: Config file that is read if `--config` is not given.
        argv: Arguments without the name of the program; by default the command line's.

    Returns:
        One instance of each dataclass.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value has the wrong type.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"{message}; --help lists all options.")

    parser = Parser(list(settings), allow_abbrev=False)
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = _file_flags(_pop_config(arguments) or default) + arguments
    known = [option for action in parser._actions for option in action.option_strings]
    _refuse_unknown(flags, known)
    try:
        return tuple(parser.parse_args_into_dataclasses(flags, look_for_args_file=False))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Wrong value in the configuration: {error}") from error


def _pop_config(arguments: list[str]) -> Path | None:
    """Remove `--config FILE` or `--config=FILE` from the arguments."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(arguments.pop(position).partition("=")[2])
        if argument == "--config":
            if position + 1 == len(arguments):
                raise ConfigError("--config needs a file, e.g. --config recipes/configs/my.yaml.")
            del arguments[position]
            return Path(arguments.pop(position))
    return None


def _file_flags(path: Path | None) -> list[str]:
    if path is None:
        return []
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the config {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it in that encoding.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} has no 'key: value' lines; expected the settings of a recipe.")
    flags: list[str] = []
    for key, value in content.items():
        flags += _as_flags(path, str(key), value)
    return flags


def _as_flags(path: Path, key: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, dict):
        raise ConfigError(f"{path}: {key!r} is a mapping; expected a single value or a list.")
    if isinstance(value, list):
        return [f"--{key}", *(_beside(path, str(item)) for item in value)]
    return [f"--{key}={_beside(path, str(value))}"]  # one piece: a value may begin with a dash


def _beside(path: Path, value: str) -> str:
    """Resolve a path that is relative to the config file, so that it works from any folder."""
    if not value.startswith(("./", "../")):
        return value
    return os.path.relpath(path.parent / value)


def _refuse_unknown(flags: Sequence[str], known: Sequence[str]) -> None:
    for flag in flags:
        name = flag.partition("=")[0]
        if name.startswith("--") and name not in known:
            dashed = name.replace("_", "-")
            close = difflib.get_close_matches(dashed, (k.replace("_", "-") for k in known), n=1)
            hint = f"Did you mean {close[0]}?" if close else "--help lists all options."
            raise ConfigError(f"Unknown option {dashed}. {hint}")
