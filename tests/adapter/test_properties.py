"""Whatever bytes come in: a sound result or a `SoftHubError`, and agreement with safetensors."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_with_safetensors

from softhub.adapter.layout import CARD, CONFIG, FILES, MANIFEST, WEIGHTS, WEIGHTS_KEY
from softhub.adapter.manifest import Manifest
from softhub.adapter.strict_json import parse_object
from softhub.adapter.validation import check_files
from softhub.adapter.weights import parse_weights
from softhub.errors import InvalidAdapter, SoftHubError
from tests.hostile.sound import config_record, manifest, sound_files, tensor_entry, weights

pytestmark = pytest.mark.timeout(120)
# Time limits of single examples would measure the machine; the timeout above catches a hang.
quickly = settings(deadline=None, max_examples=150)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.integers(0, 300)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Return the bytes with some overwritten, cut out or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["overwrite", "remove", "insert", "truncate"])):
            case "overwrite":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del data[at : at + draw(st.integers(1, 16))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                del data[at:]
    return bytes(data)


def _accepted_weights(data: bytes) -> None:
    """Parse, and if the file passes, hold the result against that of safetensors."""
    try:
        dtype, shape, raw = parse_weights(data, origin="x")
    except SoftHubError as error:
        assert str(error).isprintable()
        return
    assert len(shape) == 2
    if dtype == "BF16":  # numpy, and so safetensors.numpy, has none
        return
    expected = load_with_safetensors(data)[WEIGHTS_KEY]
    assert (expected.shape, expected.tobytes()) == (shape, raw)
    assert np.isfinite(expected).all()


@quickly
@given(st.binary(max_size=400))
def test_weights_from_any_bytes(data: bytes) -> None:
    _accepted_weights(data)


@quickly
@given(mutated(weights()))
def test_weights_from_damaged_bytes(data: bytes) -> None:
    _accepted_weights(data)


@quickly
@given(
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "f32"]) | SCALARS,
            "shape": st.lists(NUMBERS, max_size=4) | SCALARS,
            "data_offsets": st.lists(NUMBERS, max_size=3) | SCALARS,
        }
    ),
    st.binary(max_size=300),
)
def test_weights_from_any_entry(entry: dict[str, Any], body: bytes) -> None:
    _accepted_weights(weights({WEIGHTS_KEY: entry}, body))


@quickly
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_weights_of_any_bit_pattern_pass_exactly_if_finite(
    rows: int, width: int, data: st.DataObject
) -> None:
    count = rows * width
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    body = struct.pack(f"<{count}I", *words)
    entry = tensor_entry(shape=[rows, width], data_offsets=[0, len(body)])
    finite = bool(np.isfinite(np.frombuffer(body, "<f4")).all())
    try:
        assert parse_weights(weights({WEIGHTS_KEY: entry}, body), origin="x")[2] == body
        assert finite
    except InvalidAdapter:
        assert not finite


@quickly
@given(st.text(max_size=200) | JSON.map(lambda value: json.dumps(value)))
def test_json_from_any_text(text: str) -> None:
    try:
        value = parse_object(text.encode("utf-8", "surrogatepass"), origin="x")
    except SoftHubError as error:
        assert str(error).isprintable()
        return
    # Strict acceptance means that every reader agrees: another round changes nothing.
    again = json.dumps(value, allow_nan=False)
    assert parse_object(again.encode(), origin="x") == value


@quickly
@given(st.text(alphabet='[]{}":,0eE+-.\\u1 ', max_size=300))
def test_json_from_what_looks_like_json(text: str) -> None:
    try:
        parse_object(text.encode(), origin="x")
    except SoftHubError as error:
        assert str(error).isprintable()


@quickly
@given(mutated(manifest().to_bytes()))
def test_manifest_from_damaged_bytes(data: bytes) -> None:
    try:
        parsed = Manifest.from_bytes(data)
    except SoftHubError as error:
        assert str(error).isprintable()
        return
    assert Manifest.from_bytes(parsed.to_bytes()) == parsed


RECORD = json.loads(manifest().to_bytes())


@quickly
@given(st.sampled_from(sorted(RECORD)), JSON)
def test_manifest_with_any_value_in_any_field(field: str, value: Any) -> None:
    try:
        parsed = Manifest.from_bytes(json.dumps({**RECORD, field: value}).encode())
    except SoftHubError:
        return
    assert Manifest.from_bytes(parsed.to_bytes()) == parsed


@quickly
@given(st.sampled_from(sorted(config_record())), JSON)
def test_adapter_with_any_value_in_any_field_of_its_config(field: str, value: Any) -> None:
    data = json.dumps({**config_record(), field: value}).encode()
    try:
        check_files({WEIGHTS: weights(), CONFIG: data}, origin="x")
    except SoftHubError as error:
        assert str(error).isprintable()


@quickly
@given(st.sampled_from(FILES), st.data())
def test_adapter_with_one_damaged_file(name: str, data: st.DataObject) -> None:
    files = sound_files()
    files[name] = data.draw(mutated(files[name]))
    try:
        adapter = check_files(files, origin="x")
    except SoftHubError as error:
        assert str(error).isprintable()
        return
    # Only the card may change unnoticed, or a manifest in ways that say something else as soundly.
    assert name in (CARD, MANIFEST) or files == sound_files()
    assert adapter.manifest is not None
