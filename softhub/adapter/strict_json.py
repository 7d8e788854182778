"""Strict parsing of untrusted JSON: unambiguous or refused, in bounded time and memory."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any, cast

from softhub.errors import InvalidAdapter

MAX_DEPTH = 32
MAX_STRING = 65_536
MAX_KEY = 256
_MAX_DIGITS = 20
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_object(data: bytes, *, origin: str) -> dict[str, Any]:
    """Parse UTF-8 JSON whose top level is an object.

    Apart from invalid syntax, it refuses duplicate keys, NaN and Infinity, numbers too large for a
    float, nesting deeper than `MAX_DEPTH`, over-long strings and keys, and control characters.

    Args:
        data: The bytes; the caller has capped their number.
        origin: How messages refer to the source, such as a file's path.

    Returns:
        The object.

    Raises:
        InvalidAdapter: Names `origin`, what was found and what was expected.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
        )
    except RecursionError:
        raise InvalidAdapter(f"{origin} is nested too deeply for an adapter's file.") from None
    except ValueError as error:
        raise InvalidAdapter(f"{origin} is not valid JSON in UTF-8: {_reason(error)}.") from None
    if not isinstance(value, dict):
        raise InvalidAdapter(
            f"{origin} contains a JSON {type(value).__name__}; expected an object."
        )
    check_value(value, origin=origin)
    return value


def check_value(value: object, *, origin: str) -> None:
    """Check that `value` is plain JSON within the bounds of `parse_object`.

    Args:
        value: The value.
        origin: How messages refer to it.

    Raises:
        InvalidAdapter: It is nested too deeply, has an over-long or unprintable string, a
            number that is not finite, or a type that JSON does not have.
    """
    keys, strings, level = list[object](), list[object](), [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                strings.append(item)
            elif isinstance(item, dict):
                keys += item
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item[:1] if _are_finite(item) else item  # one stands for all
            elif not _is_plain(item):
                raise InvalidAdapter(
                    f"{origin} contains {_named(item)}; expected a JSON value: text, a finite "
                    "number, true, false, null, a list or an object with text keys."
                )
        if not below:
            _check_strings(keys, MAX_KEY, origin)
            _check_strings(strings, MAX_STRING, origin)
            return
        level = below
    raise InvalidAdapter(f"{origin} is nested deeper than {MAX_DEPTH} levels.")


def quoted(value: object, limit: int = 80) -> str:
    """Return `value` for a message, with escapes that are safe to print, truncated to `limit`."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _are_finite(items: Sequence[object]) -> bool:
    """Return whether there are only floats, none of them NaN or infinite: a fingerprint's lists."""
    return {*map(type, items)} == {float} and all(map(isfinite, cast("list[float]", items)))


def _is_plain(item: object) -> bool:
    return item is None or isinstance(item, int) or (isinstance(item, float) and isfinite(item))


def _named(item: object) -> str:
    return f"the number {item}" if isinstance(item, float) else f"a {type(item).__name__}"


def _check_strings(texts: Sequence[object], limit: int, origin: str) -> None:
    """Check all keys or all strings of a value at once, as an adapter has hundreds of them."""
    for text in texts:
        if not isinstance(text, str):
            raise InvalidAdapter(f"{origin} has the key {quoted(text)}; expected text keys.")
    strings = cast("Sequence[str]", texts)
    longest = max(map(len, strings), default=0)
    if longest > limit:
        raise InvalidAdapter(
            f"{origin} contains a string of {longest} characters; the limit is {limit}."
        )
    if _CONTROL.search("".join(strings)):
        text = next(text for text in strings if _CONTROL.search(text))
        raise InvalidAdapter(f"{origin} contains control characters: {quoted(text)}. Remove them.")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _bounded_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits, the limit is {_MAX_DIGITS}")
    return int(text)


def _reason(error: ValueError) -> str:
    """Return a decoder's message without the document that it quotes."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error)
