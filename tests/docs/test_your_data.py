"""Who follows docs/your-data.md gets what it shows, here on a tiny base and made-up sentences."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.tasks import Task
from tests.command import Command

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "your-data.md").read_text(encoding="utf-8")
INSPECT = (DOCS / "inspect.md").read_text(encoding="utf-8")
DEMO_BASE = "recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf"
FEW_STEPS = {"--max-steps": "2"}


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def shape(text: str) -> set[str]:
    """Lines without their numbers, which are of other data."""
    lines = (re.sub(r"\d+(\.\d+)?", "#", line) for line in text.splitlines())
    return {" ".join(line.split()) for line in lines if line.strip()}


def write_reviews(folder: Path) -> None:
    """Files as recipes/data/amazon_reviews.py writes them."""
    folder.mkdir(parents=True)
    moods = {"positive": "great, I love it", "negative": "a waste, it broke"}
    rows = [
        {
            "text": f"part {part} of number {review} is {words} for {review + part} days",
            "label": mood,
            "review": str(review),
            "score": 1.0,
        }
        for review in range(40)
        for part, (mood, words) in enumerate(moods.items())
    ]
    for split in ("train", "dev", "test"):
        own = rows[("train", "dev", "test").index(split) :: 3]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))


@pytest.mark.slow
def test_the_page_can_be_followed(
    softhub: Command,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_base("llama").as_posix()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_reviews(tmp_path / "recipes/data/files/amazon_reviews")
    make_table, use, in_python = blocks("python")
    python(make_table)
    assert blocks("text")[0].startswith((tmp_path / "reviews.csv").read_text().splitlines()[0])

    shown = [run(softhub, command, base) for command in blocks("bash")]
    drafted, trained, pushed = shown
    guesses, examples = blocks("text")[1].split("\n\n", 1)
    assert shape(guesses) <= shape(drafted)
    assert shape("".join(re.findall(r"Wrote .+\n", examples))) <= shape(drafted)
    assert shape(blocks("yaml")[0]) <= shape((tmp_path / "reviews/task.yaml").read_text())
    assert len(Task.from_file("reviews/task.yaml").load("test")) > 0
    assert {line.split()[0] for line in table_rows(trained)} == {
        *("majority", "zero-shot", "zero-shot,", "soft")
    }
    assert {line.split()[0] for line in table_rows(blocks("text")[2])} == {
        line.split()[0] for line in table_rows(trained)
    }
    assert re.fullmatch(r"me/reviews@[0-9a-f]{40}\n", pushed)

    answers = python(use.replace(DEMO_BASE, base)).splitlines()
    assert [re.sub(r"^\w+ \(\d\.\d\d\)", "", line) for line in answers] == [
        re.sub(r"^\w+ \(\d\.\d\d\)", "", line) for line in blocks("text")[-1].splitlines()
    ]
    few_steps = "max_steps=2, eval_steps=1, save_steps=1, use_cpu=True"
    trained = python(in_python.replace(DEMO_BASE, base).replace("max_steps=60", few_steps))
    assert {line.split()[0] for line in table_rows(trained)} == {
        *("majority", "zero-shot", "zero-shot,", "soft")
    }
    (code,) = blocks("python", INSPECT)
    assert len(python(code.replace(DEMO_BASE, base)).splitlines()) == 16
    assert "the median cosine of a token with its nearest token is" in run(
        softhub, blocks("bash", INSPECT)[0], base
    )
    assert (tmp_path / "inspect.html").is_file()


def run(softhub: Command, command: str, base: str) -> str:
    """Run a command of the page with the tiny base, and with fewer steps."""
    program, *arguments = shlex.split(command.replace(DEMO_BASE, base))
    assert program == "softhub"
    for option, value in FEW_STEPS.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
    if arguments[0] == "train":
        arguments += ["--use-cpu", "--eval-steps", "1", "--save-steps", "1"]
    done = softhub(*arguments)
    assert done.code == 0, done.err
    return done.out


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\d \(\d", line)]


def python(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), {"__name__": "__main__"})
    return printed.getvalue()
