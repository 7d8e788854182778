"""Files as people have them: read rightly and said so, or refused with what to do."""

import csv
import gzip
import io
import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from softhub.errors import DatasetError, MissingDependency, SoftHubWarning
from softhub.tasks import DatasetSource
from softhub.tasks.row_source import RowSource
from softhub.tasks.split_table import read_split, read_table
from softhub.tasks.task_file import resolve_data_files

ROWS = [
    {"text": 'Das Gerät, "neu"; ja | nein\tund', "label": "gut"},
    {"text": "NA", "label": "1.0"},
    {"text": "007", "label": "2020-01-01"},
]


def gzipped(data: bytes) -> bytes:
    """Compress without the time, so that all workers of a test run collect the same tests."""
    return gzip.compress(data, mtime=0)


def table(delimiter: str = ",", names: Sequence[str] = ("text", "label"), end: str = "\n") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerows([names, *(row.values() for row in ROWS)])
    return file.getvalue()


def read(folder: Path, name: str, content: bytes | str) -> tuple[list[Any], str]:
    """Return the rows, and what was said about the file."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SoftHubWarning)
        rows = [dict(row) for row in read_table(folder / name).rows]
    return rows, "; ".join(str(item.message).partition(": is read as ")[2] for item in said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", table(), ""),
        ("a.csv", table(";"), "a table whose columns are separated by semicolons"),
        ("a.csv", table("\t"), "a table whose columns are separated by tabs"),
        ("a.csv", table("|"), "a table whose columns are separated by vertical bars"),
        ("a.tsv", table("\t"), ""),
        ("a.tsv", table(), "a table whose columns are separated by commas"),
        ("a.tsv", table(";"), "a table whose columns are separated by semicolons"),
        ("A.CSV.GZ", gzipped(table().encode()), ""),
        (
            "a.csv",
            gzipped(table(";").encode()),
            "a table whose columns are separated by semicolons",
        ),
        ("a.tsv.gz", gzipped(table("\t").encode()), ""),
    ],
)
def test_delimiters_and_compression(tmp_path: Path, name: str, content: Any, said: str) -> None:
    assert read(tmp_path, name, content) == (ROWS, said)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, said: str, end: str) -> None:
    assert read(tmp_path, "a.csv", table(end=end).encode(encoding)) == (ROWS, said)
    lines = end.join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    assert read(tmp_path, "a.jsonl", lines.encode(encoding)) == (ROWS, said)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac-roman"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ";"), ("b.csv", ","), ("c.tsv", "\t")])
def test_an_export_of_excel_is_told_its_encoding(
    tmp_path: Path, encoding: str, name: str, delimiter: str
) -> None:
    content = table(delimiter).encode(encoding)
    read_as = "Das Gerät" if encoding != "mac-roman" else "Das GerŠt"
    with pytest.raises(DatasetError, match=rf"{name}, line 2: .*{read_as}.*CSV UTF-8.*iconv"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("names", [(" text", "label "), ("text ", " label"), ("\ttext", "label")])
def test_blanks_around_header_names(tmp_path: Path, names: Sequence[str]) -> None:
    header = ",".join(f'"{name}"' for name in names)
    assert read(tmp_path, "a.csv", f"{header}\nso,gut\n")[0] == [{"text": "so", "label": "gut"}]
    rows = [dict(zip(names, ("so", "gut"), strict=True))]
    assert read(tmp_path, "a.json", json.dumps(rows))[0] == [{"text": "so", "label": "gut"}]


def test_blanks_after_delimiters_and_columns_without_a_name(tmp_path: Path) -> None:
    rows, said = read(tmp_path, "a.csv", 'text, label\n"so, so", gut\nx, bad\n')
    assert rows == [{"text": "so, so", "label": "gut"}, {"text": "x", "label": "bad"}]
    assert said == "a table with a blank after each comma"
    semicolons = "a table whose columns are separated by semicolons"
    rows, said = read(tmp_path, "b.csv", "text;label;;\na,b;x;;\n")
    assert (rows, said) == ([{"text": "a,b", "label": "x"}], semicolons)
    rows, said = read(tmp_path, "c.csv", ",label,\n,x,\nso,y,1\n")
    assert rows == [{"label": "x"}, {"label": "y"}]
    assert said == "a table without columns 1 and 3, which have values and no name"


COLUMNS = {name: [row[name] for row in ROWS] for name in ("text", "label")}
INDEXED = {str(number): row for number, row in enumerate(ROWS)}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (ROWS, ""),
        ({"data": ROWS}, "rows under the key 'data'"),
        ({"version": "1", "meta": {"a": 1}, "rows": ROWS}, "rows under the key 'rows'"),
        (COLUMNS, "lists by column"),
        (
            {key: {str(n): value for n, value in enumerate(COLUMNS[key])} for key in COLUMNS},
            "pandas' form by column",
        ),
        (INDEXED, "pandas' form by index"),
        (
            {
                "columns": ["text", "label"],
                "index": [0, 1, 2],
                "data": [list(row.values()) for row in ROWS],
            },
            "pandas' split form",
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_shapes_of_json(tmp_path: Path, document: Any, said: str, indent: int | None) -> None:
    assert read(tmp_path, "a.json", json.dumps(document, indent=indent)) == (ROWS, said)


def test_one_row_and_rows_on_lines_are_json_too(tmp_path: Path) -> None:
    assert read(tmp_path, "a.json", json.dumps(ROWS[0], indent=2))[0] == ROWS[:1]
    assert read(tmp_path, "a.json", "\n".join(map(json.dumps, ROWS)))[0] == ROWS
    assert read(tmp_path, "a.ndjson", json.dumps(ROWS[0]))[0] == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), "under 'train' and 'test'.* jq "),
        ("a.json", "3", "found 3; expected a list of objects"),
        ("a.jsonl", json.dumps(ROWS, indent=1), "line 1: .* belongs in a .json file"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "line 1: repeats the key 'text'"),
        ("a.json", '[{"text": "a", "text": "b"}]', "repeats the key 'text'"),
        ("a.json", '[{"text": "a", "text ": "b"}]', "repeats the column name 'text'"),
        ("a.csv", "text, text\na,b\n", "repeats the column name 'text'"),
        ("a.csv", b"PK\x03\x04...", "this is an Excel workbook .* name it .xlsx"),
        ("a.csv", b"PAR1....", "this is a Parquet file; name it .parquet"),
        ("a.json", b"\xd0\xcf\x11\xe0....", "this is an old Excel workbook; save it as .xlsx"),
        ("a.csv.gz", gzipped(table().encode())[:-12], "compressed file is damaged"),
        ("a.csv", table().encode("utf-16")[:-1], "is not valid UTF-16"),
        ("a.csv", "a;x|y\n1;2|3\n", "separated by semicolon or vertical bar"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, name: str, content: bytes | str, reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


@pytest.mark.parametrize("chat", [CHAT, SHARED])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_chat_of_one_turn_has_a_column_for_each_role(
    tmp_path: Path, chat: list[dict[str, str]], name: str
) -> None:
    from datasets import Dataset

    rows = [{"id": 1, "messages": chat}]
    content = json.dumps(rows[0]).encode()
    if name == "a.parquet":
        Dataset.from_list(rows).to_parquet(tmp_path / "x")
        content = (tmp_path / "x").read_bytes()
    expected = {"id": 1, "messages.user": "Hi", "messages.assistant": "Hello"}
    assert read(tmp_path, name, content)[0] == [expected]
    longer = json.dumps({"messages": chat + chat})
    assert read(tmp_path, "b.jsonl", longer)[0] == [{"messages": chat + chat}]


def test_files_with_types_of_their_own(tmp_path: Path) -> None:
    import pandas
    import pyarrow
    from datasets import Dataset

    named = {" text": "text", "label": "label"}
    frame = pandas.DataFrame(ROWS).rename(columns={"text": " text"})
    frame.to_feather(tmp_path / "a.feather")
    frame.to_parquet(tmp_path / "a.parquet")
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    arrow = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", arrow.schema) as writer:
        writer.write_table(arrow)
    assert set(named) == set(frame.columns)
    for name in ("a.feather", "a.parquet", "saved", "a.arrow"):
        found = read_table(tmp_path / name)
        assert [dict(row) for row in found.rows] == ROWS
        assert found.place(1) == f"{tmp_path / name}, row 2"


def test_a_workbook_is_read_as_text(tmp_path: Path) -> None:
    import pandas

    file = tmp_path / "a.xlsx"
    with pandas.ExcelWriter(file, engine="openpyxl") as book:
        rows = [*ROWS, {"text": 12, "label": 1.5}, {"text": None, "label": None}, ROWS[0]]
        pandas.DataFrame(rows).rename(columns={"text": " text "}).to_excel(book, index=False)
        pandas.DataFrame(ROWS).to_excel(book, sheet_name="Other", index=False)
    with pytest.warns(SoftHubWarning, match="its first sheet, 'Sheet1'; it has 2 with rows"):
        found = read_table(file)
    assert found.rows == [*ROWS, {"text": "12", "label": "1.5"}, ROWS[0]]
    assert found.place(3).endswith("a.xlsx, row 5")
    (tmp_path / "b.xlsx").write_bytes(b"no workbook")
    with pytest.raises(DatasetError, match=r"b\.xlsx: cannot be read as an Excel workbook"):
        read_table(tmp_path / "b.xlsx")


def test_a_workbook_without_openpyxl_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(MissingDependency, match=r'a\.xlsx: .*pip install "softhub\[excel\]"'):
        read_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize("url", ["https://example.com/x.csv", "s3://bucket/a/x.parquet?v=1"])
def test_a_url_is_told_that_it_is_one(tmp_path: Path, url: str) -> None:
    problem = f"{re.escape(url)}: is a URL; .*download the file.*dataset on the Hub"
    source = resolve_data_files(DatasetSource(data_files={"train": url}), tmp_path)
    with pytest.raises(DatasetError, match=f"^{problem}"):
        read_split(source, "train")
    with pytest.raises(DatasetError, match=f"^{problem}"):
        RowSource.of_file(Path(url))
