"""Settings of a training recipe: each field is a key of its YAML file and a command-line flag."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from softhub.config import Alternatives
from softhub.errors import ConfigError

_PEFT_TYPES = {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}


def option(default: Any, text: str) -> Any:
    """Return a dataclass field with a default value and the help text of its flag."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TaskConfig:
    """Settings of every recipe: the task, its limits and the base; `--help` describes each."""

    task: str = field(metadata={"help": "Task file: data, template, label words, metrics."})
    base_model: str = field(
        default_factory=lambda: os.environ.get("SOFTHUB_BASE", ""),
        metadata={"help": "Hub id, folder or .gguf file of the base model; or SOFTHUB_BASE."},
    )
    base_name: str | None = option(None, "Canonical name of the base model, for cards.")
    dtype: str | None = option(None, "Data type: float32, bfloat16, float16 or auto.")
    max_train_examples: int | None = option(None, "Train on a fixed subset of this size.")
    max_dev_examples: int | None = option(None, "Select on a fixed subset of this size.")
    max_test_examples: int | None = option(None, "Evaluate on a fixed subset of this size.")
    run_generated_code: bool = option(False, "Run generated code in the sandbox (docs/sandbox.md).")

    def __post_init__(self) -> None:
        """Check that there is a base model."""
        if not self.base_model:
            raise ConfigError(
                "there is no base model; set base_model (--base-model MODEL), or SOFTHUB_BASE"
            )

    @property
    def limits(self) -> dict[str, int | None]:
        """Maximum number of examples of each split, for `Task.load_splits`."""
        return {
            "train": self.max_train_examples,
            "dev": self.max_dev_examples,
            "test": self.max_test_examples,
        }

    @property
    def base_options(self) -> dict[str, Any]:
        """Keyword arguments of `load_base`."""
        return {"name": self.base_name, "dtype": self.dtype}


@dataclass
class RunConfig(TaskConfig):
    """Settings that every training recipe shares, in addition to its training arguments."""

    prompt_type: str = option("prompt", "prompt, or prefix: keys and values in every layer.")
    num_virtual_tokens: int = option(16, "Number of virtual tokens.")
    init: str = option(
        "auto", "auto, task, labels, vocabulary, text, random, or the folder of an adapter."
    )
    init_text: str | None = option(None, "Text to initialize from, for init 'text' and 'auto'.")
    resume: bool = option(False, "Resume from the last checkpoint in output_dir.")
    overwrite: bool = option(False, "Replace the finished run in output_dir.")

    def __post_init__(self) -> None:
        """Check that no setting would be without effect.

        Raises:
            ConfigError: There is a text to initialize from, and another initialization.
        """
        super().__post_init__()
        if self.init_text is not None and self.init not in ("auto", "text"):
            raise ConfigError(
                f"init_text has no effect with init {self.init!r}; remove it, or set init to "
                "'text' or 'auto'"
            )

    @property
    def prompt_options(self) -> dict[str, Any]:
        """Entries of PEFT's configuration: its type, and what is set for it.

        Raises:
            ConfigError: The prompt type is unknown, or has no text to initialize from.
        """
        if self.prompt_type not in _PEFT_TYPES:
            raise ConfigError(
                f"prompt_type is {self.prompt_type!r}; expected one of {', '.join(_PEFT_TYPES)}."
            )
        options = {
            "peft_type": _PEFT_TYPES[self.prompt_type],
            "num_virtual_tokens": self.num_virtual_tokens,
        }
        if self.prompt_type == "prompt":
            return {**options, "prompt_tuning_init_text": self.init_text}
        if self.init_text is not None:
            raise ConfigError(
                "Found init_text with prompt_type 'prefix'; expected none, because PEFT's "
                "PrefixTuningConfig has no text. Train a prompt from the text first, and start "
                "from it: --init <its adapter folder>."
            )
        return options


@dataclass
class MultitaskConfig(RunConfig):
    """Settings of a run that trains one prompt for each of several tasks."""

    task: list[str] = field(metadata={"help": "Task files."})  # type: ignore[assignment]
    init: str = option("vocabulary", "Initialization of the prompts, or of the shared one.")
    steps: list[int] = option([], "Optimizer steps of each task; max_steps if empty.")
    shared_steps: int = option(0, "Optimizer steps of a prompt for all tasks to start from.")
    mixture: str = option("temperature", "Task sampling: temperature, proportional or equal.")
    hub: str | None = option(None, "Hub to push to: local, local:FOLDER, hf or hf+https://HOST.")
    namespace: str = option("me", "Namespace of the adapters on the hub.")

    # See `softhub.config.parse_config`.
    ALTERNATIVES: ClassVar[Alternatives] = {"steps": (None, ("max_steps", "num_train_epochs"))}

    def __post_init__(self) -> None:
        """Check that no setting would be without effect.

        Raises:
            ConfigError: There is a mixture of tasks, and no shared prompt to train on it.
        """
        super().__post_init__()
        if self.mixture != "temperature" and not self.shared_steps:
            raise ConfigError(
                f"mixture {self.mixture!r} has no effect without a shared prompt; set shared_steps"
            )

    @property
    def schedule(self) -> dict[str, Any]:
        """Keyword arguments of `fit_tasks`."""
        keys = ("init", "steps", "shared_steps", "mixture", "resume")
        return {key: getattr(self, key) for key in keys}

    def repo_id(self, task: str) -> str:
        """Return the repository that the adapter of a task is pushed to."""
        return f"{self.namespace}/{task}"
