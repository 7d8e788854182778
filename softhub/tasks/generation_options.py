"""The generation options that a task may set, and the values that each of them takes."""

from collections.abc import Callable, Mapping
from typing import Any

from softhub.errors import TaskError, expected_instead

# `generate` of transformers takes options that load code; only these may come from a task. Each
# has its type, the condition that its value meets, and what to say of another value.
_NUMBERS: Mapping[str, tuple[type, Callable[[float], bool], str]] = {
    "max_new_tokens": (int, lambda value: value >= 1, "a whole number of 1 or more"),
    "do_sample": (bool, lambda value: True, "true or false"),
    # 0 is accepted because it has no effect without sampling; sampling refuses it.
    "temperature": (float, lambda value: value >= 0, "a number of 0 or more"),
    "top_k": (int, lambda value: value >= 0, "a whole number of 0 or more"),
    "top_p": (float, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "num_beams": (int, lambda value: value >= 1, "a whole number of 1 or more"),
    "repetition_penalty": (float, lambda value: value > 0, "a number above 0"),
    "length_penalty": (float, lambda value: True, "a number"),
    "no_repeat_ngram_size": (int, lambda value: value >= 0, "a whole number of 0 or more"),
}
GENERATION_OPTIONS = (*_NUMBERS, "stop")

MOST_STOPS = 16
"""Maximum number of stop strings, all of which are looked for after every token."""
LONGEST_STOP = 256
"""Maximum number of characters of a stop string."""


def check_option(option: str, value: Any) -> None:
    """Check the value of a generation option.

    Args:
        option: One of `GENERATION_OPTIONS`.
        value: Its value.

    Raises:
        TaskError: It is not one that `generate` takes.
    """
    if option == "stop":
        _check_stop(value)
        return
    kind, fits, expected = _NUMBERS[option]
    if expected_instead(value, kind) or not fits(value):
        raise TaskError(f"generation: {option} is {value!r:.80}; expected {expected}")


def _check_stop(stop: Any) -> None:
    fine = isinstance(stop, list | tuple) and all(isinstance(text, str) and text for text in stop)
    if not fine or r"\n" in stop:  # YAML reads '\n' in single quotes as two characters
        raise TaskError(
            f"generation: stop is {stop!r:.80}; expected a list of the texts that end an answer, "
            r'e.g. ["\n"] (in double quotes)'
        )
    if len(stop) > MOST_STOPS:
        raise TaskError(
            f"generation: stop has {len(stop)} texts; expected at most {MOST_STOPS}. Keep those "
            "that an answer ends with most often"
        )
    longest = max(map(len, stop), default=0)
    if longest > LONGEST_STOP:
        raise TaskError(
            f"generation: stop has a text of {longest} characters; expected at most "
            f"{LONGEST_STOP}. Keep its beginning"
        )
