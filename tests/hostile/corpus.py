"""Hostile and broken adapters as files in memory, each with the refusal that it must meet.

`CASES` is what anything that takes in adapters (load, push, pull) is tried against.
"""

import json
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from softhub.adapter.layout import CARD, CONFIG, MANIFEST, MAX_BYTES, WEIGHTS, WEIGHTS_KEY
from softhub.errors import InvalidAdapter, UnsupportedAdapter
from tests.hostile.config_changes import CONFIG_CHANGES
from tests.hostile.sound import (
    BODY,
    PREFIX,
    H,
    P,
    config,
    metric_record,
    prefix_config_record,
    sound_files,
    tensor_entry,
    weights,
    with_manifest,
)


@dataclass(frozen=True)
class Case:
    """One attack: the files, the class of the refusal, and a part of its message."""

    name: str
    files: dict[str, bytes]
    says: str
    error: type[InvalidAdapter] = InvalidAdapter


ESCAPE = "\x1b[2J\x1b]0;owned\x07"
DEEP = 20_000


class _Bomb:
    """Unpickling this would end the test run with an exit status of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('a pickle was executed')",))


PICKLE = pickle.dumps(_Bomb())


def _with_weights(name: str, data: bytes, says: str, **error: Any) -> Case:
    """Return a case of an adapter as plain PEFT writes it, where no manifest's hash protects."""
    return Case(f"weights: {name}", {WEIGHTS: data, CONFIG: config()}, says, **error)


def _with_entry(
    name: str, says: str, body: bytes = BODY, *, error: Any = None, **entry: Any
) -> Case:
    header = {WEIGHTS_KEY: tensor_entry(**entry)}
    return _with_weights(name, weights(header, body), says, error=error or InvalidAdapter)


def _with_raw_header(name: str, header: bytes, says: str) -> Case:
    return _with_weights(name, weights(header), says)


def _with_config(name: str, says: str, *, error: Any = None, **changes: Any) -> Case:
    files = {WEIGHTS: weights(), CONFIG: config(**changes)}
    return Case(f"config: {name}", files, says, error or InvalidAdapter)


def _with_raw_config(name: str, data: bytes, says: str) -> Case:
    return Case(f"config: {name}", {WEIGHTS: weights(), CONFIG: data}, says)


def _with_manifest(name: str, says: str, **changes: Any) -> Case:
    files = with_manifest({WEIGHTS: weights(), CONFIG: config()}, **changes)
    return Case(f"manifest: {name}", files, says)


def _with_raw_manifest(name: str, data: bytes, says: str) -> Case:
    return Case(f"manifest: {name}", {**sound_files(), MANIFEST: data}, says)


def _with_card(name: str, data: bytes, says: str) -> Case:
    return Case(f"card: {name}", {**sound_files(), CARD: data}, says)


def _with_file(name: str, says: str) -> Case:
    files = {**sound_files(), name: b"x"}
    return Case(f"name: {name!a}", files, says)


def _without(name: str) -> Case:
    files = sound_files()
    del files[name]
    return Case(f"name: no {name}", files, f"has no {name}")


def _number(position: int, number: float) -> bytes:
    numbers = [0.5] * (P * H)
    numbers[position] = number
    return struct.pack(f"<{P * H}f", *numbers)


def _half_words(word: int) -> bytes:
    words = [0x3C00] * (P * H)
    words[-1] = word
    return struct.pack(f"<{P * H}H", *words)


_ENTRY = json.dumps(tensor_entry()).encode()
_PAIR = b'"prompt_embeddings":' + _ENTRY
_HALF = {"data_offsets": [0, len(BODY) // 2]}

FILE_LAYOUT = [
    _with_weights("empty file", b"", "expected a safetensors file"),
    _with_weights("seven bytes", b"\0" * 7, "expected a safetensors file"),
    _with_weights("header of 2**64 - 1 bytes", weights(length=2**64 - 1), "declares a header"),
    _with_weights("header longer than the file", weights(length=10_000), "declares a header"),
    _with_weights("header of no bytes", weights(length=0), "does not begin with"),
    _with_weights("header cut in the middle", weights(length=40), "not valid JSON"),
    _with_weights(
        "header padded beyond reason",
        weights(b"{" + _PAIR + b"}" + b" " * 100_000),
        "declares a header of",
    ),
    _with_weights("header runs into the data", weights(length=200), "not valid JSON"),
    _with_weights("file above the cap", weights() + b"\0" * MAX_BYTES[WEIGHTS], "more than"),
    _with_weights("a pickle under this name", PICKLE, "declares a header"),
    _with_weights("a zip under this name", b"PK\x03\x04" + b"\0" * 500, "declares a header"),
    _with_weights("JSON under this name", b'{"prompt_embeddings": [[1.0]]}', "declares a header"),
    _with_weights("data cut short", weights(body=BODY[:-1]), "bytes of data"),
    _with_weights("no data", weights(body=b""), "bytes of data"),
    _with_weights("bytes after the data", weights(body=BODY + PICKLE), "bytes of data"),
]

HEADERS = [
    _with_raw_header("header begins with a space", b" {" + _PAIR + b"}", "does not begin with"),
    _with_raw_header("header is a list", b"[" + _ENTRY + b"]", "does not begin with"),
    _with_raw_header("header has a byte order mark", b"\xef\xbb\xbf{}", "does not begin with"),
    _with_raw_header("header is UTF-16", ("{" + _PAIR.decode() + "}").encode("utf-16-le"), "JSON"),
    _with_raw_header("header is not UTF-8", b'{"\xff":' + _ENTRY + b"}", "is not UTF-8"),
    _with_raw_header("two headers", b"{" + _PAIR + b"}{}", "not valid JSON"),
    _with_raw_header("tensor twice", b"{" + _PAIR + b"," + _PAIR + b"}", "occurs twice"),
    _with_raw_header(
        "dtype twice",
        b"{" + _PAIR.replace(b'"dtype"', b'"dtype": "F64", "dtype"') + b"}",
        "occurs twice",
    ),
    _with_raw_header(
        "metadata twice", b'{"__metadata__":{},"__metadata__":{},' + _PAIR + b"}", "occurs twice"
    ),
    _with_raw_header(
        "the same key, once escaped",
        b'{"prompt\\u005fembeddings":' + _ENTRY + b"," + _PAIR + b"}",
        "occurs twice",
    ),
    _with_raw_header("nested lists", b'{"a":' + b"[" * DEEP, "nested too deeply"),
    _with_raw_header("nested objects", b'{"a":' * 10_000, "nested too deeply"),
    _with_raw_header(
        "forty levels",
        b'{"__metadata__":{"a":' + b"[" * 40 + b"]" * 40 + b"}," + _PAIR + b"}",
        "nested deeper",
    ),
    _with_raw_header("metadata is a list", b'{"__metadata__":[],' + _PAIR + b"}", "__metadata__"),
    _with_raw_header(
        "metadata holds an object", b'{"__metadata__":{"a":{}},' + _PAIR + b"}", "__metadata__"
    ),
    _with_raw_header(
        "terminal escape in metadata",
        b'{"__metadata__":{"a":"\\u001b[2J"},' + _PAIR + b"}",
        "control characters",
    ),
    _with_raw_header(
        "terminal escape in a tensor's name",
        b'{"\\u001b[2J":' + _ENTRY + b"," + _PAIR + b"}",
        "control characters",
    ),
    _with_raw_header("NUL in a tensor's name", b'{"a\\u0000":' + _ENTRY + b"}", "control"),
    _with_raw_header("half a surrogate pair", b'{"\\ud800":' + _ENTRY + b"}", "control"),
    _with_raw_header("name of 300 characters", b'{"' + b"a" * 300 + b'":1}', "the limit is 256"),
]

TENSORS = [
    _with_weights("no tensor", weights({}, b""), "no tensor", error=UnsupportedAdapter),
    _with_weights(
        "another name",
        weights({"base_model.model.lora_A.weight": tensor_entry()}),
        "lora_A",
        error=UnsupportedAdapter,
    ),
    _with_weights(
        "an embedding table beside",
        weights(
            {
                WEIGHTS_KEY: tensor_entry(),
                "embed_tokens.weight": tensor_entry(data_offsets=[len(BODY), 2 * len(BODY)]),
            },
            BODY * 2,
        ),
        "save_embedding_layers=False",
        error=UnsupportedAdapter,
    ),
    _with_weights(
        "a second tensor over the same bytes",
        weights({WEIGHTS_KEY: tensor_entry(), "shadow": tensor_entry()}),
        "shadow",
        error=UnsupportedAdapter,
    ),
    _with_weights(
        "five hundred tensors",
        weights({WEIGHTS_KEY: tensor_entry(), **{f"t{i}": tensor_entry() for i in range(500)}}),
        "and 498 more",
        error=UnsupportedAdapter,
    ),
    _with_weights("entry is a number", weights({WEIGHTS_KEY: 7}), "expected dtype, shape"),
    _with_weights("entry is null", weights({WEIGHTS_KEY: None}), "expected dtype, shape"),
    _with_entry("unknown key", "expected dtype, shape", strides=[8, 1]),
    _with_entry("no offsets", "expected dtype, shape", data_offsets=...),
    _with_entry("dtype F64", "F64", error=UnsupportedAdapter, dtype="F64", shape=[2, H]),
    _with_entry("dtype I32", "I32", error=UnsupportedAdapter, dtype="I32"),
    _with_entry("dtype F8_E4M3", "F8", error=UnsupportedAdapter, dtype="F8_E4M3"),
    _with_entry("dtype is a list", "dtype", error=UnsupportedAdapter, dtype=["F32"]),
    _with_entry("dtype is long", "characters)", error=UnsupportedAdapter, dtype="F" * 9_000),
    _with_entry("F32 data said to be F16", "bytes of data", dtype="F16"),
    _with_entry("F16 data said to be F32", "bytes of data", BODY[: len(BODY) // 2], **_HALF),
    _with_entry("one dimension", "shape [32]", shape=[P * H]),
    _with_entry("three dimensions", "shape [1, 4, 8]", shape=[1, P, H]),
    _with_entry("no dimension", "shape []", shape=[]),
    _with_entry("no rows", "shape [0, 8]", b"", shape=[0, H], data_offsets=[0, 0]),
    _with_entry("negative rows", "shape [-4, -8]", shape=[-P, -H]),
    _with_entry("fractional rows", "shape [4.0, 8]", shape=[4.0, H]),
    _with_entry("rows said by true", "shape [True, 32]", shape=[True, P * H]),
    _with_entry("shape is text", "shape '4x8'", shape="4x8"),
    _with_entry("rows overflow 64 bits", "shape [4294967296", shape=[2**32, 2**32]),
    _with_entry("a billion rows", "shape [1000000000", shape=[10**9, H]),
    _with_entry("other shape of equal size", "has 8 rows", shape=[H, P]),
    _with_entry("offsets leave a gap", "bytes of data", data_offsets=[8, len(BODY)]),
    _with_entry("offsets reversed", "bytes of data", data_offsets=[len(BODY), 0]),
    _with_entry("offsets beyond the end", "bytes of data", data_offsets=[0, 10**12]),
    _with_entry("offsets negative", "bytes of data", data_offsets=[-8, len(BODY)]),
    _with_entry("offsets fractional", "bytes of data", data_offsets=[0.0, 128.0]),
    _with_entry("offset said by false", "bytes of data", data_offsets=[False, len(BODY)]),
    _with_entry("three offsets", "bytes of data", data_offsets=[0, 64, len(BODY)]),
    _with_raw_header(
        "a dimension of 5,000 digits",
        b"{" + _PAIR.replace(b"[4, 8]", b"[4, " + b"9" * 5_000 + b"]") + b"}",
        "5000 digits",
    ),
    _with_raw_header(
        "a dimension of 1e999",
        b"{" + _PAIR.replace(b"[4, 8]", b"[4, 1e999]") + b"}",
        "contains the number inf",
    ),
    _with_raw_header(
        "a dimension of NaN",
        b"{" + _PAIR.replace(b"[4, 8]", b"[4, NaN]") + b"}",
        "NaN is not a JSON number",
    ),
]

NUMBERS = [
    _with_weights("NaN first", weights(body=_number(0, float("nan"))), "at position 0"),
    _with_weights("NaN last", weights(body=_number(31, float("nan"))), "at position 31"),
    _with_weights("infinity", weights(body=_number(5, float("inf"))), "NaN or infinite"),
    _with_weights("minus infinity", weights(body=_number(5, float("-inf"))), "NaN or infinite"),
    _with_weights(
        "signalling NaN", weights(body=BODY[:-4] + b"\x01\x00\x80\x7f"), "NaN or infinite"
    ),
    _with_entry("NaN in F16", "NaN or infinite", _half_words(0x7E00), dtype="F16", **_HALF),
    _with_entry("infinity in F16", "NaN or infinite", _half_words(0xFC00), dtype="F16", **_HALF),
    _with_entry("NaN in BF16", "NaN or infinite", _half_words(0x7FC0), dtype="BF16", **_HALF),
    _with_entry("infinity in BF16", "NaN or infinite", _half_words(0xFF80), dtype="BF16", **_HALF),
]

CONFIGS = [
    _with_raw_config("empty", b"", "not valid JSON"),
    _with_raw_config("a list", b"[]", "expected an object"),
    _with_raw_config("YAML", b"peft_type: PROMPT_TUNING\n", "not valid JSON"),
    _with_raw_config("a comment", config() + b"// x", "not valid JSON"),
    _with_raw_config("UTF-16", config().decode().encode("utf-16"), "not UTF-8"),
    _with_raw_config("overlong UTF-8", b'{"a": "\xc0\xaf"}', "not UTF-8"),
    _with_raw_config("a byte order mark", b"\xef\xbb\xbf" + config(), "not valid JSON"),
    _with_raw_config("NaN", config()[:-1] + b', "x": NaN}', "NaN is not a JSON number"),
    _with_raw_config("-Infinity", config()[:-1] + b', "x": -Infinity}', "not a JSON number"),
    _with_raw_config("1e999", config()[:-1] + b', "x": 1e999}', "contains the number inf"),
    _with_raw_config(
        "peft_type twice", b'{"peft_type": "LORA", ' + config()[1:], "'peft_type' occurs twice"
    ),
    _with_raw_config("nested lists", b'{"a":' + b"[" * DEEP, "nested too deeply"),
    _with_raw_config("above the cap", config() + b" " * MAX_BYTES[CONFIG], "more than"),
    _with_config("terminal escape in the base", "control", base_model_name_or_path=ESCAPE),
    _with_config("NUL in the base", "control", base_model_name_or_path="org/base\0"),
    _with_config("10**12 virtual tokens", "num_virtual_tokens", num_virtual_tokens=10**12),
    _with_config("no virtual tokens", "num_virtual_tokens 0", num_virtual_tokens=0),
    _with_config("negative virtual tokens", "num_virtual_tokens -4", num_virtual_tokens=-4),
    _with_config("virtual tokens as text", "num_virtual_tokens '4'", num_virtual_tokens="4"),
    _with_config("fractional virtual tokens", "num_virtual_tokens 4.0", num_virtual_tokens=4.0),
    _with_config("virtual tokens said by true", "tokens True", num_virtual_tokens=True),
    _with_config("virtual tokens missing", "num_virtual_tokens None", num_virtual_tokens=...),
    _with_config("more virtual tokens than rows", "has 4 rows", num_virtual_tokens=5),
    _with_config("another width", "token_dim", token_dim=H + 1),
    _with_config("width as text", "token_dim", token_dim="8"),
    _with_config("a billion submodules", "submodules", num_transformer_submodules=10**9),
    _with_config("two submodules of a decoder", "submodules 2", num_transformer_submodules=2),
    _with_config("submodules said by true", "submodules True", num_transformer_submodules=True),
    _with_config("code to import", "Python code", auto_mapping={"parent_library": "os"}),
    _with_config(
        "remote code for the tokenizer",
        "trust_remote_code",
        tokenizer_kwargs={"trust_remote_code": True},
    ),
    *[
        _with_config(name, says, error=error, **changes)
        for name, says, error, changes in CONFIG_CHANGES
    ],
    _with_config("tokenizer options as text", "tokenizer_kwargs", tokenizer_kwargs="x"),
    _with_config(
        "extra modules", "modules_to_save", error=UnsupportedAdapter, modules_to_save=["score"]
    ),
    *[
        _with_config(
            f"peft_type {kind!r}",
            "expected one of PROMPT_TUNING",
            error=UnsupportedAdapter,
            peft_type=kind,
        )
        for kind in ("LORA", "P_TUNING", "MULTITASK_PROMPT_TUNING", None, [], ...)
    ],
    *[
        _with_config(f"task_type {kind!r}", "CAUSAL_LM", error=UnsupportedAdapter, task_type=kind)
        for kind in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", None, {})
    ],
]

PREFIXES = [
    _with_config(f"prefix: {name}", says, error=error, **prefix_config_record(**changes))
    for name, says, error, changes in (
        ("layers missing", "num_layers None", InvalidAdapter, {"num_layers": None}),
        ("10**9 layers", "num_layers 1000000000", InvalidAdapter, {"num_layers": 10**9}),
        ("layers said by true", "num_layers True", InvalidAdapter, {"num_layers": True}),
        ("a negative layer", "num_layers -2", InvalidAdapter, {"num_layers": -2}),
        ("another layer", "rows of 8 numbers; expected 12", InvalidAdapter, {"num_layers": 3}),
        ("no heads", "num_attention_heads 0", InvalidAdapter, {"num_attention_heads": 0}),
        ("heads as text", "num_attention_heads '1'", InvalidAdapter, {"num_attention_heads": "1"}),
        ("heads that do not divide", "a multiple of 3", InvalidAdapter, {"num_attention_heads": 3}),
        ("no width", "token_dim None", InvalidAdapter, {"token_dim": None}),
        ("a wider layer", "rows of 8 numbers; expected 16", InvalidAdapter, {"token_dim": 4}),
        ("a huge layer", "token_dim 9007199254740992", InvalidAdapter, {"token_dim": 2**53}),
        ("more tokens than rows", "has 4 rows", InvalidAdapter, {"num_virtual_tokens": 5}),
        ("two submodules", "submodules 2", InvalidAdapter, {"num_transformer_submodules": 2}),
        ("of an encoder-decoder", "is a prefix", UnsupportedAdapter, {"task_type": "SEQ_2_SEQ_LM"}),
        (
            "of a cartridge",
            "expected 12",
            InvalidAdapter,
            {"peft_type": "CARTRIDGE", "num_layers": 3},
        ),
    )
]

MANIFESTS = [
    _with_manifest(
        "of a prefix beside a prompt", "in hidden_size", hidden_size=None, prefix=PREFIX
    ),
    _with_manifest("prompt and prefix", "because the prompt is a prefix", prefix=PREFIX),
    _with_manifest("neither prompt nor prefix", "hidden_size", hidden_size=None),
    _with_manifest("prefix as text", "prefix in", hidden_size=None, prefix="2x1x2"),
    _with_manifest("prefix with another key", "unknown key", prefix={**PREFIX, "exec": 1}),
    _with_manifest("prefix without layers", "lacks the key", prefix={"head_dim": 2}),
    _with_manifest(
        "prefix of 10**9 layers",
        "prefix.num_layers",
        hidden_size=None,
        prefix={**PREFIX, "num_layers": 10**9},
    ),
    _with_manifest(
        "prefix with layers said by true",
        "prefix.num_layers",
        hidden_size=None,
        prefix={**PREFIX, "num_layers": True},
    ),
    _with_raw_manifest("not JSON", b"\x80\x04.", "not UTF-8"),
    _with_raw_manifest("above the cap", b" " * (MAX_BYTES[MANIFEST] + 1), "more than"),
    _with_raw_manifest("nested lists", b'{"a":' + b"[" * DEEP, "nested too deeply"),
    _with_raw_manifest("of a list", b"[1]", "expected an object"),
    _with_raw_manifest("key twice", b'{"task":1,"task":2}', "'task' occurs twice"),
    _with_manifest("unknown key", "unknown key 'exec'", exec="rm"),
    _with_manifest("missing key", "lacks the key 'provenance'", provenance=...),
    _with_manifest("newer schema", "Upgrade softhub", schema_version=3),
    _with_manifest("no schema version", "schema_version", schema_version=...),
    _with_manifest("schema version as text", "schema_version", schema_version="1"),
    _with_manifest("schema version said by true", "schema_version", schema_version=True),
    _with_manifest("negative schema version", "schema_version", schema_version=-1),
    _with_manifest("other weights", "was changed", files={WEIGHTS: "0" * 64, CONFIG: "0" * 64}),
    _with_manifest("hashes missing", "was changed", files={}),
    _with_manifest("hash of a file elsewhere", "etc/passwd", files={"../../etc/passwd": "0" * 64}),
    _with_manifest("hash is no SHA-256", "a SHA-256", files={WEIGHTS: "abc"}),
    _with_manifest("another base", "is inconsistent in base", base_model="evil/base"),
    _with_manifest("base is a path", "never a path", base_model="/home/me/base"),
    _with_manifest("base is a parent folder", "never a path", base_model="../base"),
    _with_manifest("base is a Windows path", "never a path", base_model="C:\\models\\base"),
    _with_manifest("base is a URL", "never a path", base_model="https://evil.example/base"),
    _with_manifest("base breaks the line", "never a path", base_model="org/base\nlicense: mit"),
    _with_manifest("base is long", "never a path", base_model="o/" + "b" * 97),
    _with_manifest("base has look-alike letters", "never a path", base_model="\u043erg/base"),
    _with_manifest("another P", "is inconsistent in num", num_virtual_tokens=P + 1),
    _with_manifest("another H", "is inconsistent in hidden", hidden_size=H * 2),
    _with_manifest("another task type", "inconsistent in task_type", task_type="SEQ_2_SEQ_LM"),
    _with_manifest("task type of a head", "task_type", task_type="SEQ_CLS"),
    _with_manifest("P said by true", "num_virtual_tokens", num_virtual_tokens=True),
    _with_manifest("P of 10**12", "num_virtual_tokens", num_virtual_tokens=10**12),
    _with_manifest("task is a list", "task in", task=[1]),
    _with_manifest("provenance is text", "provenance in", provenance="trust me"),
    _with_manifest("terminal escape in the task", "control", task={"description": ESCAPE}),
    _with_manifest("terminal escape in its name", "control", task={"name": ESCAPE}),
    _with_manifest("line break in the task's name", "task.name", task={"name": "a\nb"}),
    _with_manifest("text direction in its name", "task.name", task={"name": "a\u202eb"}),
    _with_manifest("task's name is long", "task.name", task={"name": "a" * 300}),
    _with_manifest("forty levels", "nested deeper", task={"a": json.loads("[" * 40 + "]" * 40)}),
    _with_manifest("long text", "the limit is 65536", task={"a": "x" * 70_000}),
    _with_manifest("long key", "the limit is 256", provenance={"x" * 300: 1}),
    _with_manifest("licence over two lines", "license", license="mit\ntags: [x]"),
    _with_manifest("metrics are an object", "metrics", metrics={}),
    _with_manifest("metric is text", "metrics", metrics=["0.99"]),
    _with_manifest("metric has an unknown key", "'rank'", metrics=[metric_record(rank=1)]),
    _with_manifest("score as text", "metrics.value", metrics=[metric_record(value="0.9")]),
    _with_manifest("score said by true", "metrics.value", metrics=[metric_record(value=True)]),
    _with_manifest("interval upside down", "low not above", metrics=[metric_record(low=1.0)]),
    _with_manifest("fewer than no examples", "examples", metrics=[metric_record(examples=-1)]),
    _with_manifest("baseline as text", "baselines", metrics=[metric_record(baselines={"a": "b"})]),
    _with_manifest("split with an escape", "control", metrics=[metric_record(split=ESCAPE)]),
]

CARDS = [
    _with_card("not UTF-8", b"\xff\xfe", "not UTF-8"),
    _with_card("a terminal escape", ESCAPE.encode(), "control character '\\x1b'"),
    _with_card("a NUL", b"# a\0b", "control character '\\x00'"),
    _with_card("a C1 escape", "\x9b2J".encode(), "control character '\\x9b'"),
    _with_card("above the cap", b" " * (MAX_BYTES[CARD] + 1), "more than"),
]

NAMES = [
    _without(WEIGHTS),
    _without(CONFIG),
    Case("name: no files", {}, "has no adapter_config.json"),
    Case(
        "name: only pickled weights",
        {CONFIG: config(), "adapter_model.bin": PICKLE},
        "pickled",
        UnsupportedAdapter,
    ),
    *[
        _with_file(name, "expected only")
        for name in (
            "adapter_model.bin",
            "training_args.bin",
            "modeling.py",
            "tokenizer.json",
            "../README.md",
            "/etc/passwd",
            "C:\\README.md",
            "README.md/../../x",
            "./README.md",
            "readme.md",
            "README.md\0.py",
            "README.md ",
            "\x1b[2JREADME.md",
            "CON",
            "",
        )
    ],
]

CASES = [
    *FILE_LAYOUT,
    *HEADERS,
    *TENSORS,
    *NUMBERS,
    *CONFIGS,
    *PREFIXES,
    *MANIFESTS,
    *CARDS,
    *NAMES,
]
