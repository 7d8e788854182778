"""The script that makes summaries and small functions out of packages."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from itertools import combinations
from pathlib import Path

import pytest
from fetch import have_files, without_runs

from recipes.data import docstrings
from recipes.data.docstrings import (
    collect,
    functions,
    human_eval,
    is_inferable,
    modules,
    parts,
    split_by_module,
    summaries,
    words,
)

SCRIPT = Path(docstrings.__file__)
TEXT = "Each word of the text is counted once for every time that it stands in the text."
MODULE = f'''
import itertools as it
from collections import Counter
from third_party import thing


class Words:
    """Words of a text.

    {TEXT}
    Upper case does not matter for that.

    Parameters
    ----------
    text : str
        Not this.
    """


def count_words(text):
    """Count the words of a ``text``.

    {TEXT}
    """
    # Counter is quick
    return Counter(text.split())


def pairs(items):
    """All pairs of the items given."""
    return list(it.combinations(items, 2))


def foreign(text):
    """Needs what the standard library has not."""
    return thing(text)


def empty(text):
    """Does not do anything at all."""
    raise NotImplementedError


@property
def decorated(text):
    """Has a decorator in front of it."""
    return text


def long(text):
    """Is longer than what a model may write."""
    return text{" + text" * 60}
'''


def test_first_lines_and_prose_become_rows():
    rows = list(summaries(ast.parse(MODULE)))
    assert rows == [
        {
            "name": "Words",
            "text": f"{TEXT} Upper case does not matter for that.",
            "summary": "Words of a text.",
        },
        {"name": "count_words", "text": TEXT, "summary": "Count the words of a text."},
    ]


def test_prose_ends_at_a_heading_a_list_or_a_doctest():
    for end in ("Parameters\n----------", "Returns:\n    a", ">>> f()", "- one", ":param a: b"):
        assert parts(f"Do it\nwell.\n\nThis is how.\nAnd so.\n{end}\nNo.") == (
            "Do it well.",
            "This is how. And so.",
        )
    assert parts("Call :meth:`~a.b.fit` or ``x``.\n\nIt `fits`.") == (
        "Call a.b.fit or x.",
        "It fits.",
    )


@pytest.mark.parametrize(
    ("summary", "text", "told"),
    [
        ("Count the words of texts.", TEXT, True),
        ("Multiply two large matrices quickly.", TEXT, False),  # nothing in it says that
        ("Count words.", TEXT, False),
        ("Count the words of texts", TEXT, False),
        ("Count the words of texts.", "Each word is counted.", False),
        ("Count the {words} of texts.", TEXT, False),
        ("Count the words of texts.", TEXT.rstrip("."), False),
    ],
)
def test_a_summary_is_a_sentence_that_the_text_tells(summary, text, told):
    assert is_inferable(summary, text, "f") is told


def test_the_name_may_tell_the_summary():
    assert is_inferable("Multiply two large matrices quickly.", TEXT, "multiply_matrices")


def test_functions_that_stand_alone_become_prompt_and_body():
    rows = list(functions(ast.parse(MODULE), MODULE))
    assert rows == [
        {
            "prompt": "from collections import Counter\n\n\n"
            'def count_words(text):\n    """Count the words of a text."""\n',
            "body": "    return Counter(text.split())\n",
        },
        {
            "prompt": "import itertools as it\n\n\n"
            'def pairs(items):\n    """All pairs of the items given."""\n',
            "body": "    return list(it.combinations(items, 2))\n",
        },
    ]
    for row in rows:
        ast.parse(row["prompt"] + row["body"])


@pytest.mark.parametrize(
    "body",
    [
        "    global x\n    x = text\n",
        "    import os\n    return os\n",
        "    return undefined(text)\n",
        "    return '''a'''\n",
    ],
)
def test_functions_that_do_not_are_left_out(body):
    source = f'def f(text):\n    """A few words of it."""\n{body}'
    assert list(functions(ast.parse(source), source)) == []


def test_a_body_may_define_and_catch_what_it_uses():
    source = (
        'def f(text, *more, key=None):\n    """A few words of it."""\n\n'
        "    def g(x):\n        return x + text\n\n"
        "    try:\n        y = [g(z) for z in more]\n"
        "    except ValueError as error:\n        return error, f, key\n"
    )
    (row,) = functions(ast.parse(source), source)
    assert "\n\n" not in row["body"]
    assert row["body"].startswith("    def g(x):\n        return x + text\n    try:\n")


def test_what_was_said_or_written_before_is_left_out():
    rows = collect([("a.py", MODULE), ("b.py", MODULE)])
    assert [row["group"] for kind in rows for row in rows[kind]] == ["a.py"] * 4


def some_rows(kind, modules=90):
    columns = ("text", "summary") if kind == "summaries" else ("prompt", "body")
    return [
        {column: f"{column} {number} of module {module}" for column in columns}
        | {"group": f"m{module}.py"}
        for module in range(modules)
        for number in range(1 + module % 17)
    ]


@pytest.mark.parametrize("kind", ["summaries", "code"])
def test_whole_modules_are_dealt(kind):
    rows = some_rows(kind)
    splits = split_by_module(kind, rows)
    groups = {name: {row["group"] for row in split} for name, split in splits.items()}
    assert all(not a & b for a, b in combinations(groups.values(), 2))
    assert sum(map(len, splits.values())) == len(rows)
    assert all(len(splits[name]) >= wanted for name, wanted in docstrings.EXAMPLES[kind].items())
    assert split_by_module(kind, rows[::-1]) == {
        name: split[::-1] for name, split in splits.items()
    }


def test_a_long_run_of_words_is_a_leak():
    test = {"text": "one two three four five six seven eight nine", "summary": "A b."}
    other = {"text": "two three four five six seven eight", "summary": "C d."}
    same = {"text": "zero TWO, three four five six seven eight nine ten", "summary": "E f."}
    answer = {"text": "other words", "summary": "a B"}
    assert without_runs([other, same, answer], [test], ("text", "summary"), 8) == [other]


def test_modules_are_read_in_order_and_tests_left_out():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for name in ("p/z.py", "p/a.py", "p/tests/b.py", "p/test_c.py", "p/conftest.py", "p/d.txt"):
            wheel.writestr(name, f"# {name}")
    with zipfile.ZipFile(stream) as wheel:
        assert list(modules(wheel)) == [("p/a.py", "# p/a.py"), ("p/z.py", "# p/z.py")]


def test_problems_bring_the_call_of_their_tests():
    problem = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
        "entry_point": "f",
    }
    (row,) = human_eval(json.dumps(problem).encode() + b"\n")
    namespace: dict = {}
    exec(row["prompt"] + row["body"] + "\n" + row["tests"], namespace)
    assert row["group"] == "HumanEval/0"
    with pytest.raises(AssertionError):
        exec(row["prompt"] + "    return 2\n" + row["tests"], {})


def test_without_a_package_index_it_says_so_and_leaves_nothing(tmp_path):
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    shutil.copy(SCRIPT.with_name("fetch.py"), tmp_path)
    script = shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, **nothing}
    )
    assert done.returncode == 1
    assert "pip could not download networkx==3.6.1, toolz" in done.stderr
    assert "Check the network connection" in done.stderr
    assert "Traceback" not in done.stderr
    assert "arXiv 2107.03374" in done.stdout and "BSD-3-Clause" in done.stdout
    assert not (tmp_path / "files").exists()


@pytest.mark.skipif(
    not have_files(docstrings.FOLDER, docstrings.FILES),
    reason="python recipes/data/docstrings.py was not run",
)
@pytest.mark.parametrize("kind", ["summaries", "code"])
def test_the_real_splits_share_no_module_and_no_answer(kind):
    splits = {
        name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name in ("train", "dev", "test")
        for path in [docstrings.FOLDER / kind / f"{name}.jsonl"]
    }
    sizes = {"summaries": (1046, 119, 301), "code": (465, 80, 165)}
    assert tuple(map(len, splits.values())) == sizes[kind]
    for column in ("group", "summary" if kind == "summaries" else "body"):
        found = [{words(row[column]) for row in rows} for rows in splits.values()]
        assert all(not a & b for a, b in combinations(found, 2))
    if kind == "code":
        assert all(docstrings.compiles(r["prompt"], r["body"]) for r in splits["test"])
