"""The snippets of docs/: quoted files, Python imports and command-line flags are those of today."""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from softhub import PromptTrainingArguments, Task
from softhub.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ELISION = "# …"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


# --- YAML: a block whose first line is a comment with a path quotes that file ---


def quoted_file(block: str) -> Path | None:
    found = re.match(r"# ([\w./-]+\.yaml)\n", block)
    return ROOT / found[1] if found else None


def is_quote(block: str, text: str) -> bool:
    """Whether the lines of a block are those of a text; `# …` stands for lines left out.

    Comments at the top of the file may be missing.
    """
    lines = block.splitlines()[1:]
    patterns = (r"(?:.*\n)*?" if line == ELISION else f"{re.escape(line)}\n" for line in lines)
    return re.fullmatch(rf"(?:#.*\n)*{''.join(patterns)}", text) is not None


QUOTES = [
    pytest.param(block, id=f"{named(page)}: {named(file)}")
    for page in PAGES
    for block in blocks(page, "yaml")
    if (file := quoted_file(block))
]


@pytest.mark.parametrize("block", QUOTES)
def test_quoted_yaml_is_that_of_its_file(block: str) -> None:
    file = quoted_file(block)
    assert file is not None
    assert is_quote(block, file.read_text(encoding="utf-8"))


def test_the_recipes_quote_their_configs() -> None:
    quoted = {str(quote.id).partition(": ")[2] for quote in QUOTES}
    assert quoted >= {
        *("recipes/configs/sentiment.yaml", "recipes/configs/multitask.yaml"),
        "recipes/tasks/sentiment.yaml",
    }


FILE = "# A title.\n# More.\na: 1  # one\nb:\n  - 2\n\nc: 3\n"


@pytest.mark.parametrize(
    "lines",
    [
        "a: 1  # one\nb:\n  - 2\n\nc: 3",
        "# A title.\n# More.\na: 1  # one\nb:\n  - 2\n\nc: 3",
        "a: 1  # one\n# …\nc: 3",
        "# …\nb:\n  - 2\n# …",
    ],
)
def test_a_quote_may_leave_lines_out_where_it_says_so(lines: str) -> None:
    assert is_quote(f"# file.yaml\n{lines}\n", FILE)


@pytest.mark.parametrize(
    "lines",
    [
        "a: 2  # one\nb:\n  - 2\n\nc: 3",  # another value
        "a: 1\nb:\n  - 2\n\nc: 3",  # another comment
        "a: 1  # one\nd: 4\nb:\n  - 2\n\nc: 3",  # a line that the file lacks
        "a: 1  # one\n\nc: 3",  # lines left out in silence
        "a: 1  # one\nb:\n  - 2",  # the end left out in silence
        "# …\nc: 3\n# …\na: 1  # one\n# …",  # another order
    ],
)
def test_a_quote_that_differs_is_found(lines: str) -> None:
    assert not is_quote(f"# file.yaml\n{lines}\n", FILE)


TASKS = [
    pytest.param(block, id=named(page))
    for page in PAGES
    for block in blocks(page, "yaml")
    if block.startswith("name:")
]


@pytest.mark.parametrize("block", TASKS)
def test_invented_tasks_are_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(block, encoding="utf-8")
    assert Task.from_file(file).name


# --- Python ---

PYTHON = [
    pytest.param(block, id=f"{named(page)}: {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"), start=1)
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_compiles_and_imports_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "vllm" and importlib.util.find_spec("vllm") is None:
                continue  # it lives in an environment of its own, where this test runs too
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


# --- command lines ---


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(("softhub ", "accelerate launch ")):
                yield shlex.split(line, comments=True)


@functools.cache
def flags_of_recipe(script: Path) -> set[str]:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    settings = typing.get_type_hints(recipe.main)["config"]
    fields = [*dataclasses.fields(settings), *dataclasses.fields(PromptTrainingArguments)]
    return {"--config", *(f"--{field.name.replace('_', '-')}" for field in fields)}


def allowed_flags(words: list[str]) -> set[str]:
    """Return the flags of `softhub VERB …`, including those that it passes to a recipe."""
    command = get_command(app)
    for word in words[1:]:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    options = {name for parameter in command.params for name in parameter.opts}
    recipe = "compare" if words[1] == "compare" else None
    if words[1] == "train":
        recipe = words[words.index("--recipe") + 1] if "--recipe" in words else "classification"
    return options | (flags_of_recipe(ROOT / "recipes" / f"{recipe}.py") if recipe else set())


def unknown_flags(words: list[str]) -> list[str]:
    """Return the flags of a command line of softhub, or of a recipe, that do not exist."""
    scripts = [word for word in words if re.fullmatch(r"recipes/\w+\.py", word)]
    if words[:1] == ["softhub"] and not words[1].startswith("-"):
        allowed = allowed_flags(words)
    elif words[:2] == ["accelerate", "launch"] and scripts:
        words = words[words.index(scripts[0]) :]
        allowed = flags_of_recipe(ROOT / scripts[0])
    else:
        return []
    given = [word for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [flag for flag in given if flag.partition("=")[0] not in allowed]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_flags_exist_and_have_dashes(page: Path) -> None:
    assert [(words, found) for words in commands(page) if (found := unknown_flags(words))] == []


@pytest.mark.parametrize(
    "line",
    [
        "softhub train --config a.yaml --max_steps 3",
        "softhub train --shared-steps 3",
        "softhub push runs/a me/a --label v1",
        "accelerate launch --config_file a.yaml recipes/medical.py --exampel x",
        "softhub compare --virtual_tokens 3",
    ],
)
def test_flags_that_do_not_exist_are_found(line: str) -> None:
    assert len(unknown_flags(line.split())) == 1
