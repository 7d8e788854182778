"""Where softhub keeps its files, and how a recipe's YAML and flags become typed settings."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from softhub.errors import ConfigError


@dataclass
class RunConfig:
    """What every recipe that trains a prompt is told beside its training arguments.

    Attributes:
        task: Task file: data, template, words of the labels, metrics.
        base_model: Hub id, local folder or `.gguf` file of the base.
        base_name: Its canonical name for cards.
        dtype: Of the weights.
        num_virtual_tokens: Rows of the soft prompt.
        init: Where training starts.
        init_text: The text to start from, for `init: text`; `auto` tries it too.
        init_from: Adapter folder to go on from, instead.
        max_train_examples: At most so many of the split: a fixed subset.
        max_dev_examples: The same for dev.
        max_test_examples: The same for test.
        resume: Whether to go on from the last checkpoint.
    """

    task: str = field(metadata={"help": "Task file: data, template, words of the labels, metrics."})
    base_model: str = field(metadata={"help": "Hub id, local folder or .gguf file of the base."})
    base_name: str | None = field(default=None, metadata={"help": "Its canonical name for cards."})
    dtype: str | None = field(default=None, metadata={"help": "float32, bfloat16, float16, auto."})
    num_virtual_tokens: int = field(default=16, metadata={"help": "Rows of the soft prompt."})
    init: str | None = field(default="auto", metadata={"help": "auto, task, labels, vocabulary, …"})
    init_text: str | None = field(default=None, metadata={"help": "The text of init 'text'."})
    init_from: str | None = field(default=None, metadata={"help": "Adapter folder to go on from."})
    max_train_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})
    max_dev_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})
    max_test_examples: int | None = field(default=None, metadata={"help": "A fixed subset."})
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint."})

    @property
    def prompt_options(self) -> dict[str, Any]:
        """What PEFT's `PromptTuningConfig` is told of it."""
        return {
            "num_virtual_tokens": self.num_virtual_tokens,
            "prompt_tuning_init_text": self.init_text,
        }


def softhub_home() -> Path:
    """Folder of the local hub and of converted bases: `$SOFTHUB_HOME`, or `~/.softhub`."""
    return Path(os.environ.get("SOFTHUB_HOME") or Path.home() / ".softhub").expanduser()


def parse_config(
    *settings: Any, default: Path | None = None, argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Read `--config file.yaml` and `--key value` flags into dataclasses.

    The file's keys become flags in front of the real ones, so that types, defaults and unknown
    keys are treated alike and a flag overrides the file. (A YAML reader alone would leave `1e-4`
    a string.) A value in the file that begins with `./` or `../` is a path beside the file.

    Args:
        settings: Dataclasses whose fields are the known keys, e.g. a recipe's own and
            `PromptTrainingArguments`.
        default: The config file that is read where `--config` names none.
        argv: Arguments without the program's name; the default is the command line.

    Returns:
        One instance of each dataclass.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value has the wrong type.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f"{message}; see --help for all keys.")

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
    """Take `--config FILE` or `--config=FILE` out of the arguments."""
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
        raise ConfigError(f"{path} is not UTF-8 text: save it in that encoding.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no 'key: value' lines; expected a recipe's settings.")
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
    """Resolve a relative path in a config file, so that the file can be used from anywhere."""
    if not value.startswith(("./", "../")):
        return value
    return os.path.relpath(path.parent / value)


def _refuse_unknown(flags: Sequence[str], known: Sequence[str]) -> None:
    for flag in flags:
        name = flag.partition("=")[0]
        if name.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else " See --help for all keys."
            raise ConfigError(f"Unknown key {name}.{hint}")
