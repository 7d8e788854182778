"""PEFT's configuration of what is trained: a prompt of input embeddings, or a prefix."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate.utils import parse_flag_from_env
from peft import PeftConfig, PeftType, PrefixTuningConfig, PromptTuningConfig

from softhub.adapter.layout import MAX_BYTES, WEIGHTS
from softhub.adapter.manifest import PrefixShape
from softhub.errors import TrainingError, expected_instead, require_type
from softhub.model.base import BaseModel
from softhub.model.prefix import prefix_shape, require_shared_keys
from softhub.training.arguments import AUTO_ONLY, PromptTrainingArguments, defaults_of
from softhub.training.encoded_task import EncodedTask

PromptConfig = PromptTuningConfig | PrefixTuningConfig

_HEADER_BYTES = 1024


def check_config(base: BaseModel, config: PromptConfig, args: PromptTrainingArguments) -> None:
    """Check that this base can be trained with a PEFT configuration and these arguments.

    Raises:
        ConfigError: An argument is of another type.
        TrainingError: Says what was found and what was expected.
        BaseModelError: A prefix is to be trained, and the base cannot run one.
    """
    require_type("base", base, BaseModel, "Load it with load_base.")
    require_type("config", config, PeftConfig, "Use PEFT's PromptTuningConfig.")
    require_type("args", args, PromptTrainingArguments, "It takes all of TrainingArguments.")
    if config.peft_type not in (PeftType.PROMPT_TUNING, PeftType.PREFIX_TUNING):
        raise TrainingError(
            f"Found a PEFT configuration of type {config.peft_type}; expected PromptTuningConfig "
            "or PrefixTuningConfig."
        )
    if config.task_type is not None and str(config.task_type) != base.task_type:
        raise TrainingError(
            f"The PEFT configuration has task_type={config.task_type}, but {base.name} is "
            f"{base.task_type}: use task_type=base.task_type."
        )
    tokens = config.num_virtual_tokens
    if expected := expected_instead(tokens, int, 1):
        raise TrainingError(f"num_virtual_tokens is {tokens!r}; expected {expected}, e.g. 20.")
    _check_length(args)
    if isinstance(config, PrefixTuningConfig):
        _check_prefix(base, config, args)


def _check_length(args: PromptTrainingArguments) -> None:
    """Refuse arguments that have no effect on a run that ends by itself, or on one that does not.

    Raises:
        TrainingError: Names them.
    """
    names = ("early_stopping_patience", "eval_strategy", "lr_scheduler_type")
    unused = names if args.is_auto else AUTO_ONLY
    if all(getattr(args, name) == default for name, default in defaults_of(unused).items()):
        return
    listed = " and ".join([", ".join(unused[:-1]), unused[-1]])
    if args.is_auto:
        raise TrainingError(
            "max_steps 'auto' ends a run by itself, at an evaluation, and has a constant learning "
            f"rate: leave out {listed}, or set max_steps to a number."
        )
    raise TrainingError(
        f"The number of steps is fixed: leave out {listed}, which limit a run that ends by itself, "
        "or set max_steps to 'auto'."
    )


def check_widths(base: BaseModel, config: PromptConfig, tasks: Sequence[EncodedTask]) -> None:
    """Check that a prefix is exact with the longest text and answer of all tasks.

    Raises:
        BaseModelError: Cached keys and values of such rows are not exact on the base.
    """
    if isinstance(config, PrefixTuningConfig):
        require_shared_keys(base, int(config.num_virtual_tokens) + max(one.width for one in tasks))


def prefix_to_train(base: BaseModel, config: PromptConfig) -> PrefixShape | None:
    """Return the shape of the prefix that a configuration asks for; None for a prompt.

    Raises:
        BaseModelError: The base cannot run prefixes.
    """
    return prefix_shape(base) if isinstance(config, PrefixTuningConfig) else None


def uses_fsdp(args: PromptTrainingArguments) -> bool:
    """Whether FSDP is on, which can shard a base only once in a process."""
    return bool(args.fsdp) or bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def _check_prefix(
    base: BaseModel, config: PrefixTuningConfig, args: PromptTrainingArguments
) -> None:
    shape, tokens = prefix_shape(base), int(config.num_virtual_tokens)
    if config.prefix_projection:
        raise TrainingError(
            "prefix_projection is true; expected false: keys and values start from those of a "
            "prompt and are trained in each layer's unit, so they need no projection."
        )
    option = "gradient_checkpointing" if args.gradient_checkpointing else "FSDP"
    if args.gradient_checkpointing or uses_fsdp(args):
        raise TrainingError(
            f"A prefix cannot be trained with {option}, with which layers read no given keys and "
            "values. Leave it out, or train a prompt (PromptTuningConfig, --prompt-type prompt)."
        )
    most = (MAX_BYTES[WEIGHTS] - _HEADER_BYTES) // (4 * shape.width)
    if tokens > most:
        raise TrainingError(
            f"A prefix of {tokens} virtual tokens for {base.name} would have "
            f"{4 * tokens * shape.width:,} bytes; an adapter has at most {MAX_BYTES[WEIGHTS]:,}. "
            f"Use up to {most} virtual tokens."
        )
