"""Location of softhub's files, and parsing of YAML files and flags into typed settings."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from softhub.errors import ConfigError

_PATIENCE = 10  # seconds for an answer

Alternatives = Mapping[str, tuple[str | None, tuple[str, ...]]]
"""Settings that make others ineffective; see `parse_config`."""


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


def hub_answers() -> bool:
    """Ask the Hugging Face Hub once whether it answers; in offline mode it does not."""
    import httpx2  # the HTTP library of huggingface_hub
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except httpx2.TransportError:
        return False
    return True


def load_yaml(text: str, same: Callable[[Any], Any] = lambda key: key) -> Any:
    """Parse YAML; a key that is written twice, of which YAML would use the last, is an error.

    Args:
        text: The document.
        same: Returns what two spellings of a key have in common.

    Raises:
        yaml.YAMLError: The text is not valid, or a key is repeated; the mark has the line.
    """
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def construct_mapping(
            self, node: yaml.MappingNode, deep: bool = False
        ) -> dict[Hashable, Any]:
            lines: dict[Any, int] = {}
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable):
                    continue  # SafeLoader has the message
                if same(key) in lines:
                    problem = f"the key {key!r} repeats line {lines[same(key)]}; remove one"
                    mark = key_node.start_mark
                    raise yaml.constructor.ConstructorError(None, None, problem, mark)
                lines[same(key)] = key_node.start_mark.line + 1
            return super().construct_mapping(node, deep=deep)

    return yaml.load(text, Loader=StrictLoader)


def parse_config(
    *settings: Any, default: Path | None = None, argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Read `--config file.yaml` and `--key value` flags into dataclasses.

    The keys of the file are turned into flags before the real ones, so that types, defaults and
    unknown keys are treated alike, and a flag overrides the file. (A YAML reader alone would leave
    `1e-4` a string.) A value in the file that begins with `./` or `../` is a path relative to the
    file. Flags may be written with dashes or underscores.

    Some settings have no effect where another one is given, as `max_steps` beside `steps`. A
    dataclass lists them in `ALTERNATIVES`: by name, the value that turns the setting off (None if
    it is off by default), and the settings that it replaces. A flag then wins over the file, and
    two of them in one place are an error.

    `--help` leaves out the settings that a dataclass lists in `NOT_IN_HELP`.

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
    parser = _parser(settings)
    arguments = list(sys.argv[1:] if argv is None else argv)
    in_file = _file_flags(_pop_config(arguments) or default)
    flags = _without_replaced(settings, in_file, arguments)
    known = [option for action in parser._actions for option in action.option_strings]
    _refuse_unknown(flags, known)
    try:
        *found, unused = parser.parse_args_into_dataclasses(
            flags, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Wrong value in the configuration: {error}") from error
    if unused:
        raise ConfigError(
            f"Found {unused[0]!r}, which follows no option. --help lists all options."
        )
    return tuple(found)


def _parser(settings: Sequence[Any]) -> Any:
    """Return transformers' parser for dataclasses, which raises errors and does not exit."""
    from transformers import HfArgumentParser

    hidden = {name for each in settings for name in getattr(each, "NOT_IN_HELP", ())}

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"{message}; --help lists all options.")

        def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
            name = options.get("dest") or names[0].removeprefix("--")
            options["help"] = argparse.SUPPRESS if name in hidden else _help(**options)
            return super().add_argument(*names, **options)

    formatter = argparse.HelpFormatter  # transformers' own shows every default, None too
    return Parser(list(settings), allow_abbrev=False, formatter_class=formatter)


def _help(help: str = "", default: Any = None, action: str = "", **options: Any) -> str:
    """Return the help of an option: with its default, or for `--no_x` of what it turns off."""
    if action == "store_false":
        return f"Turn off: {help}"
    shown = default not in (None, "", argparse.SUPPRESS)
    return f"{help} (default: %(default)s)" if shown else help


class _Flag(NamedTuple):
    name: str
    value: str
    tokens: list[str]


def _without_replaced(
    settings: Sequence[Any], in_file: list[str], arguments: list[str]
) -> list[str]:
    """Return the flags of the file and the command line without those that have no effect."""
    file, line = [*_each_flag(in_file)], [*_each_flag(arguments)]
    alternatives = [
        (name, off, other)
        for each in settings
        for name, (off, replaced) in getattr(each, "ALTERNATIVES", {}).items()
        for other in replaced
    ]
    offs = {name: off for name, off, _ in alternatives}
    for name, _, other in alternatives:
        pair = {name, other}
        here, there = (
            {f.name for f in part if f.value != offs.get(f.name)} for part in (file, line)
        )
        for place, given in (("the config", here), ("the flags", there)):
            if pair <= given:
                raise ConfigError(
                    f"Found both {name} and {other} in {place}; only {name} would have an effect. "
                    "Remove one of them."
                )
        if pair & there:
            file = [flag for flag in file if flag.name not in pair - there]
    given = {flag.name for flag in (*file, *line)}
    off = [f"--{n}={off}" for n, off, other in alternatives if off and other in given - {n}]
    return [*off, *(token for flag in (*file, *line) for token in flag.tokens)]


def _each_flag(tokens: Sequence[str]) -> Iterator[_Flag]:
    """Group a flag with the values that follow it."""
    groups: list[list[str]] = []
    for token in tokens:
        if token.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(token)
    for group in groups:
        name, _, value = group[0].removeprefix("--").partition("=")
        yield _Flag(name.replace("-", "_"), value or " ".join(group[1:]), group)


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
        content = load_yaml(
            path.read_text(encoding="utf-8"), lambda key: str(key).replace("-", "_")
        )
    except OSError as error:
        raise ConfigError(f"Cannot read the config {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it in that encoding.") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path} is not valid YAML: {line}{error.problem}") from error
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
