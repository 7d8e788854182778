"""The script that makes a T5 folder out of an ONNX model, on graphs written by hand."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recipes.data import demo_t5
from recipes.data.demo_t5 import Message, folder_files, weights

SCRIPT = Path(demo_t5.__file__)


def varint(value):
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def entry(number, value):
    """One field of a message: a number, or anything with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def initializer(name, values, *, packed=True):
    """A tensor as ONNX writes it: its bytes, or for a single number its own field."""
    dtypes = {np.dtype(dtype): code for code, dtype in demo_t5.DTYPES.items()}
    dims = b"".join(map(varint, values.shape))
    shape = entry(1, dims) if packed else b"".join(entry(1, size) for size in values.shape)
    data = shape + entry(2, dtypes[values.dtype]) + entry(8, name)
    if values.shape:
        return data + entry(9, values.tobytes())
    if values.dtype == np.float32:
        return data + entry(4, struct.pack("<f", values))
    # Negative numbers are written as 64 bits.
    return data + entry(5, varint(int(values) & 2**64 - 1))


def model(*, root="enc"):
    """A graph with a norm, an 8-bit embedding and an 8-bit matrix that a node multiplies with."""
    tensors = [
        initializer(f"{root}.block.0.layer_norm.weight", np.array([1.5, -2], np.float32)),
        initializer(
            f"{root}.shared.weight_quantized", np.array([[0, 255]], np.uint8), packed=False
        ),
        initializer(f"{root}.shared.weight_scale", np.float32(0.5) * np.ones((), np.float32)),
        initializer(f"{root}.shared.weight_zero_point", np.array(128, np.uint8)),
        initializer("onnx::MatMul_7_quantized", np.array([[1, 2, 3], [-4, -5, -128]], np.int8)),
        initializer("onnx::MatMul_7_scale", np.array(0.25, np.float32)),
        initializer("onnx::MatMul_7_zero_point", np.array(-1, np.int8)),
        initializer("onnx::Shape_1", np.array([3], np.int64)),
    ]
    path = f"/{root}/block.0/SelfAttention/q/MatMul"
    nodes = [
        entry(1, "x_quantized")
        + entry(1, "onnx::MatMul_7_quantized")
        + entry(2, "y")
        + entry(3, f"{path}_quant")
        + entry(4, "MatMulInteger"),
        entry(1, "onnx::Shape_1") + entry(3, "/other") + entry(4, "Gather"),
    ]
    graph = b"".join([*(entry(1, node) for node in nodes), *(entry(5, t) for t in tensors)])
    return entry(1, 8) + entry(7, graph)


@pytest.mark.parametrize(("root", "prefix"), [("enc", "encoder."), ("m", "")])
def test_weights_get_their_names_and_values(root, prefix):
    found = weights(model(root=root), root)
    assert len(found) == 3
    matrix = found[f"{prefix}block.0.SelfAttention.q.weight"]
    # 0.25 * (integer + 1), and the other way round than the node multiplies
    assert matrix.tolist() == [[0.5, -0.75], [0.75, -1.0], [1.0, -31.75]]
    assert found["shared.weight"].tolist() == [[-64.0, 63.5]]
    assert found[f"{prefix}block.0.layer_norm.weight"].tolist() == [1.5, -2.0]
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}


def test_fields_of_every_kind_are_read():
    data = entry(1, 300) + varint(2 << 3 | 5) + b"abcd" + varint(3 << 3 | 1) + b"12345678"
    message = Message.parse(memoryview(data + entry(1, 2**40) + entry(4, "text")))
    assert message.numbers(1) == [300, 2**40]
    assert bytes(message.fields[2][0]) == b"abcd"
    assert bytes(message.fields[3][0]) == b"12345678"
    assert message.texts(4) == ["text"]
    assert message.numbers(5) == []


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="found 3 weights; expected the 190"):
        folder_files(weights(model(), "enc"), b"{}")


def test_the_tokenizer_cuts_and_pads_nothing(monkeypatch):
    found = {f"w{number}": np.zeros(1, np.float32) for number in range(190)}
    files = folder_files(found, json.dumps({"truncation": {"max_length": 48}}).encode())
    assert set(files) == set(demo_t5.FILES)
    assert json.loads(files["tokenizer.json"]) == {"truncation": None, "padding": None}
    assert json.loads(files["generation_config.json"])["decoder_start_token_id"] == 0


def test_without_a_package_index_it_says_so_and_leaves_nothing(tmp_path):
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    shutil.copy(SCRIPT.with_name("fetch.py"), tmp_path)
    script = shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, **nothing}
    )
    assert done.returncode == 1
    assert "could not download traceforge-title-model==0.2.0" in done.stderr
    assert "Check the network connection" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Apache-2.0" in done.stdout and "MIT" in done.stdout
    assert not (tmp_path / "files").exists()
