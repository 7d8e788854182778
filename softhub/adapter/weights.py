"""The weights file: one finite matrix in safetensors format, parsed strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from softhub.adapter.layout import WEIGHTS_KEY
from softhub.adapter.manifest import MAX_VIRTUAL_TOKENS
from softhub.adapter.strict_json import parse_object, quoted
from softhub.errors import InvalidAdapter, UnsupportedAdapter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# All exponent bits set means NaN or infinite (IEEE 754; bfloat16 likewise).
_EXPONENT = {"F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}
_MAX_HEADER = 64 * 1024
_LENGTH_BYTES = 8
_MAX_WIDTH = 2**24  # keys and values of all layers of one token, of the largest models


class Weights(NamedTuple):
    """The stored tensor of one prompt.

    Attributes:
        dtype: `F32`, `F16` or `BF16`.
        shape: `(P, H)`; `(2P, H)` as PEFT saves encoder-decoder prompts with two submodules; or
            `(P, width)` of a prefix, see `PrefixShape`.
        body: The numbers, row by row, little-endian.
    """

    dtype: str
    shape: tuple[int, int]
    body: bytes

    def to_float32(self) -> Matrix:
        """Return the matrix as float32, a copy."""
        import numpy as np

        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32.
            halves = np.frombuffer(self.body, dtype="<u2").astype("<u4") << 16
            return halves.view("<f4").reshape(self.shape).astype(np.float32)
        stored = {"F32": "<f4", "F16": "<f2"}[self.dtype]
        return np.frombuffer(self.body, dtype=stored).reshape(self.shape).astype(np.float32)


def parse_weights(data: bytes, *, origin: str) -> Weights:
    """Parse a safetensors file that contains one prompt and nothing else.

    Format: 8 bytes little-endian header length, a JSON header, the tensors' bytes
    (https://github.com/huggingface/safetensors#format).

    Args:
        data: The content of the file.
        origin: How messages refer to it.

    Returns:
        The tensor.

    Raises:
        InvalidAdapter: Malformed, not exactly one finite matrix named `prompt_embeddings`.
        UnsupportedAdapter: Valid, but of another dtype or with more tensors.
    """
    header, body = _split(data, origin)
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InvalidAdapter(f"__metadata__ of {origin} is {quoted(notes)}; expected strings.")
    if WEIGHTS_KEY not in header:
        raise UnsupportedAdapter(
            f"{origin} contains {_names(header)}; expected the one tensor {WEIGHTS_KEY!r} "
            "of prompt tuning. softhub loads no other adapters."
        )
    if len(header) > 1:
        raise UnsupportedAdapter(
            f"{origin} contains {_names(header)}; expected {WEIGHTS_KEY!r} alone. "
            "Save it again in PEFT with save_embedding_layers=False and no modules_to_save."
        )
    dtype, shape = _check_tensor(header[WEIGHTS_KEY], len(body), origin)
    _check_finite(dtype, body, origin)
    return Weights(dtype, shape, body)


def is_count(value: object, limit: int) -> TypeGuard[int]:
    """Return whether `value` is an integer from 1 to `limit`."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit


def _split(data: bytes, origin: str) -> tuple[dict[str, Any], bytes]:
    if len(data) < _LENGTH_BYTES:
        raise InvalidAdapter(f"{origin} has {len(data)} bytes; expected a safetensors file.")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    available = min(len(data) - _LENGTH_BYTES, _MAX_HEADER)
    if length > available:
        raise InvalidAdapter(
            f"{origin} declares a header of {length} bytes; expected at most {available}."
        )
    end = _LENGTH_BYTES + length
    if data[_LENGTH_BYTES:end][:1] != b"{":
        raise InvalidAdapter(f"The header of {origin} does not begin with '{{'.")
    return parse_object(data[_LENGTH_BYTES:end], origin=f"The header of {origin}"), data[end:]


def _names(header: Mapping[str, Any]) -> str:
    names = sorted(header)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(quoted(name) for name in names[:3]) + more if names else "no tensor"


def _check_tensor(entry: object, body_bytes: int, origin: str) -> tuple[str, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidAdapter(
            f"{origin} describes its tensor as {quoted(entry)}; expected dtype, shape and "
            "data_offsets."
        )
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise UnsupportedAdapter(
            f"{origin} has dtype {quoted(dtype)}; expected {', '.join(_ITEM_BYTES)}. "
            "Convert it: `.to(torch.float32)`, then save it again."
        )
    rows, width = _matrix(shape, origin)
    expected = [0, rows * width * _ITEM_BYTES[dtype]]
    if not _equals(entry["data_offsets"], expected) or body_bytes != expected[1]:
        raise InvalidAdapter(
            f"{origin} has {body_bytes} bytes of data at {quoted(entry['data_offsets'])}; expected "
            f"{expected[1]} at {expected} for shape {[rows, width]} in {dtype}."
        )
    return dtype, (rows, width)


def _matrix(shape: object, origin: str) -> tuple[int, int]:
    if isinstance(shape, list) and len(shape) == 2:
        rows, width = shape
        if is_count(rows, 2 * MAX_VIRTUAL_TOKENS) and is_count(width, _MAX_WIDTH):
            return rows, width
    raise InvalidAdapter(
        f"{origin} has shape {quoted(shape)}; expected [virtual tokens, numbers of each], two "
        f"integers up to {2 * MAX_VIRTUAL_TOKENS} and {_MAX_WIDTH}."
    )


def _equals(found: object, expected: list[int]) -> bool:
    """Compare integers, where True is not 1 and 0.0 is not 0."""
    return isinstance(found, list) and found == expected and {*map(type, found)} == {int}


def _check_finite(dtype: str, body: bytes, origin: str) -> None:
    import numpy as np

    words = np.frombuffer(body, dtype="<u4" if dtype == "F32" else "<u2")
    bad = np.flatnonzero((words & _EXPONENT[dtype]) == _EXPONENT[dtype])
    if bad.size:
        raise InvalidAdapter(
            f"{origin} contains {bad.size} numbers that are NaN or infinite, the first at position "
            f"{bad[0]}; expected finite numbers. Training went wrong, or the file is damaged."
        )
