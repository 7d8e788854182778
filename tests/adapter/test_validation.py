import json
import struct
import subprocess
import sys

import pytest
from safetensors import SafetensorError
from safetensors.numpy import load as load_with_safetensors

from softhub.adapter.layout import CONFIG, MANIFEST, WEIGHTS, WEIGHTS_KEY, sha256_of
from softhub.adapter.strict_json import MAX_DEPTH, check_value
from softhub.adapter.validation import check_files
from softhub.adapter.weights import parse_weights
from softhub.errors import InvalidAdapter, UnsupportedAdapter
from tests.hostile.corpus import NUMBERS
from tests.hostile.sound import BODY, H, P, config, sound_files, tensor_entry, weights

HALF = {"data_offsets": [0, P * H * 2]}


def _foreign(**changes: object) -> dict[str, bytes]:
    return {WEIGHTS: weights(), CONFIG: config(**changes)}


def test_parses_what_safetensors_itself_parses() -> None:
    dtype, shape, raw = parse_weights(weights(), origin="x")
    expected = load_with_safetensors(weights())[WEIGHTS_KEY]
    assert (dtype, shape, raw) == ("F32", expected.shape, expected.tobytes())


def test_accepts_a_header_padded_with_spaces_as_safetensors_writes_it() -> None:
    header = json.dumps({WEIGHTS_KEY: tensor_entry()}).encode() + b" " * 7
    assert parse_weights(weights(header), origin="x")[2] == BODY


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_accepts_half_precision_with_its_largest_finite_number(dtype: str) -> None:
    largest = 0x7BFF if dtype == "F16" else 0x7F7F
    body = struct.pack(f"<{P * H}H", *([0x0001, largest, 0x8000, largest | 0x8000] * (P * H // 4)))
    data = weights({WEIGHTS_KEY: tensor_entry(dtype=dtype, **HALF)}, body)
    assert parse_weights(data, origin="x") == (dtype, (P, H), body)


def test_accepts_the_largest_finite_float() -> None:
    body = b"\xff\xff\x7f\x7f" + BODY[4:]
    assert parse_weights(weights(body=body), origin="x")[2] == body


def test_plain_safetensors_would_have_let_non_finite_numbers_and_doubled_keys_in() -> None:
    """The reason for an own parser; if this fails, safetensors has become stricter."""
    nan = next(case for case in NUMBERS if "NaN first" in case.name)
    assert load_with_safetensors(nan.files[WEIGHTS])[WEIGHTS_KEY].shape == (P, H)
    entry = json.dumps(tensor_entry())
    doubled = f'{{"{WEIGHTS_KEY}":{entry},"{WEIGHTS_KEY}":{entry}}}'.encode()
    assert list(load_with_safetensors(weights(doubled))) == [WEIGHTS_KEY]
    with pytest.raises(SafetensorError):
        load_with_safetensors(weights(body=BODY + b"x"))


def test_a_plain_peft_adapter_passes_without_a_manifest() -> None:
    adapter = check_files(_foreign(), origin="x")
    assert adapter.manifest is None
    assert adapter.shape == (P, H)


@pytest.mark.parametrize("changes", [{"token_dim": None}, {"num_transformer_submodules": None}])
def test_a_config_may_leave_to_peft_what_peft_can_tell(changes: dict[str, object]) -> None:
    assert check_files(_foreign(**changes), origin="x").shape == (P, H)


@pytest.mark.parametrize(
    ("submodules", "count"), [(1, P), (2, P // 2), (None, P // 2)], ids=["one", "two", "unsaid"]
)
def test_an_encoder_decoder_adapter_may_stack_two_prompts(
    submodules: int | None, count: int
) -> None:
    files = _foreign(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=count,
        num_transformer_submodules=submodules,
    )
    assert check_files(files, origin="x").shape == (P, H)


def test_a_trainers_text_initialisation_is_no_reason_to_refuse() -> None:
    files = _foreign(
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="Classify the text.\n\tAnswer:",
        tokenizer_name_or_path="/home/me/model",
        tokenizer_kwargs={"use_fast": True},
        a_key_of_tomorrow=1,
    )
    assert check_files(files, origin="x").manifest is None


def test_p_tuning_is_refused_with_the_way_to_convert_it() -> None:
    with pytest.raises(UnsupportedAdapter, match=r"get_prompt\(batch_size=1\)"):
        check_files(_foreign(peft_type="P_TUNING"), origin="x")


def test_a_changed_byte_is_found_by_the_manifest() -> None:
    files = sound_files()
    files[WEIGHTS] = files[WEIGHTS][:-1] + bytes([files[WEIGHTS][-1] ^ 1])
    with pytest.raises(InvalidAdapter, match="was changed or damaged"):
        check_files(files, origin="x")


def test_an_edited_card_is_no_damage() -> None:
    assert check_files({**sound_files(), "README.md": b"# Mine now\n"}, origin="x").manifest


def test_a_base_without_a_name_agrees_with_a_config_that_says_none() -> None:
    files = _foreign(base_model_name_or_path=None)
    record = json.loads(sound_files()[MANIFEST])
    record.update(
        base_model="unknown", files={name: sha256_of(data) for name, data in files.items()}
    )
    adapter = check_files({**files, MANIFEST: json.dumps(record).encode()}, origin="x")
    assert adapter.manifest is not None


def test_the_room_imports_no_torch() -> None:
    rooms = "softhub.adapter.layout, softhub.adapter.manifest, softhub.adapter.validation"
    found = "[name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules]"
    program = f"import sys, {rooms}; print({found})"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert output.stdout.strip() == "[]", output.stderr


@pytest.mark.parametrize("innermost", [[], [0.5, 1.5], [0.5, "a"], [None]], ids=str)
def test_what_is_in_a_list_counts_as_a_level_of_its_own(innermost):
    value = innermost
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    check_value(value, origin="a record")
    if innermost:
        with pytest.raises(InvalidAdapter, match="nested deeper"):
            check_value([value], origin="a record")
