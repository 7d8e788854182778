"""Files of JSON lines: what was written comes back, whatever texts contain and whatever was cut."""

from pathlib import Path

import pytest

from softhub.errors import ConfigError
from softhub.experiments.records import append_record, read_record, read_records

SEPARATORS = "a\u2028b\u2029c\x85d\x1ce\rf\ng"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_only_a_line_break_ends_a_record(path: Path) -> None:
    assert read_records(path, dict) == []
    added = [{"text": SEPARATORS}, {"text": "naïve 日本"}]
    for record in added:
        append_record(path, record)
    assert read_records(path, dict) == added


def test_a_line_that_was_cut_within_a_character_is_left_out_and_mended(path: Path) -> None:
    append_record(path, {"text": "whole"})
    append_record(path, {"text": "日本"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index("日".encode()) + 1])
    assert read_records(path, dict) == [{"text": "whole"}]
    append_record(path, {"text": "next"})
    assert read_records(path, dict) == [{"text": "whole"}, {"text": "next"}]
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'"x"', b'{"text": "\xff"}', b"[" * 100_000])
def test_a_damaged_line_is_named(line: bytes, path: Path) -> None:
    path.write_bytes(b'{"text": "whole"}\n' + line + b"\n" + b'{"text": "whole"}\n')
    with pytest.raises(ConfigError, match=rf"{path.name} is damaged: line 2 is not"):
        read_records(path, dict)


@pytest.mark.parametrize(
    ("content", "line"), [(b"", 1), (b"[]", 1), (b'{\n"a": 1,\n', 3), (b'{\n"a": "\xff"}', 2)]
)
def test_a_damaged_file_of_one_object_is_named_with_its_line(
    content: bytes, line: int, path: Path
) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path.name} is damaged: line {line} .* Fix it\."):
        read_record(path, "Fix it.")
