"""Every case of the corpus is refused as expected, by the gate and by what stands behind it."""

from pathlib import Path

import pytest

from softhub.adapter.layout import FILES
from softhub.adapter.validation import check_files, check_folder
from softhub.errors import InvalidAdapter
from tests.hostile.corpus import CASES, Case
from tests.hostile.sound import sound_files

pytestmark = pytest.mark.timeout(20)


# From a folder only the four names are read; others beside them are left alone (test_folders).
IN_FOLDERS = [case for case in CASES if set(case.files) <= set(FILES)]


def _ids(case: Case) -> str:
    return case.name


def test_the_corpus_is_large_and_has_no_case_twice() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_sound_adapter_passes() -> None:
    files = sound_files()
    adapter = check_files(files, origin="me/sound")
    assert adapter.shape == (4, 8)
    assert adapter.dtype == "F32"
    assert adapter.total_bytes == sum(map(len, files.values()))
    assert adapter.manifest is not None
    assert adapter.manifest.base_model == "org/base"


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_refused_with_a_message_that_says_why(case: Case) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        check_files(case.files, origin="me/prompt@main")
    assert type(caught.value) is case.error
    message = str(caught.value)
    assert case.says in message
    assert "me/prompt@main" in message
    assert message.isprintable(), "one line, and nothing in it that a terminal obeys"
    assert len(message) < 900


@pytest.mark.parametrize("case", IN_FOLDERS, ids=_ids)
def test_refused_from_a_folder_too(case: Case, tmp_path: Path) -> None:
    for name, data in case.files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidAdapter) as caught:
        check_folder(tmp_path)
    assert type(caught.value) is case.error
