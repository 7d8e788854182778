"""inspect: tables, JSON, a picture and a page; always with the caveat."""

import base64
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from softhub.evaluation.inspection import inspect_prompt
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from tests.cli.conftest import MakeAdapter
from tests.command import Command

TOKEN_COLUMNS = "token\tnorm\tnorm rank\tnearest by cosine\tinitialized from"


def test_a_prompt_of_the_hub_beside_a_folder(
    softhub: Command, make_adapter: MakeAdapter, base: Path
) -> None:
    first, second = make_adapter(seed=1), make_adapter(seed=2, provenance={"init": "labels"})
    softhub("push", first, "me/first")
    done = softhub("inspect", "me/first", "--base", base, "--compare", second, "--compare", first)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "400 tokens; 90 % of their norms are between" in lines[0]
    assert lines[2] == TOKEN_COLUMNS
    assert [line.split("\t")[0] for line in lines[3:8]] == list("01234")
    assert lines[-1].split("\t")[0] == str(first)
    assert lines[-1].split("\t")[2] == "0%"
    assert "\nnote: Nearest tokens explain little" in done.err
    shown = softhub("inspect", second, "--base", base)
    assert re.search(r"'.+', distance \d\.\d\d$", shown.out.splitlines()[3])


def test_json_is_what_python_gets(softhub: Command, adapter: Path, base: Path) -> None:
    done = softhub("inspect", adapter, "--base", base, "--neighbors", 2, "--json")
    found = inspect_prompt(SoftPrompt.from_pretrained(adapter), load_base(base), neighbors=2)
    assert json.loads(done.out) == json.loads(json.dumps(found.to_record()))


def test_a_page_stands_alone(softhub: Command, adapter: Path, base: Path, tmp_path: Path) -> None:
    html = tmp_path / "new" / "a.html"
    options = ("--compare", adapter, "--html", html)
    done = softhub("inspect", adapter, "--base", base, "--neighbors", 400, *options)
    assert done.code == 0, done.err
    assert f"Wrote {html}\n" in done.err
    page = html.read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    places = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^")\s>]+)', page)
    assert places and all(p.startswith("data:image/svg+xml;base64,") for p in places), places
    assert "&lt;pad&gt;" in page and "<pad>" not in page
    assert "Nearest tokens explain little" in page
    assert page.count('<th scope="row">') == 6
    svg = base64.b64decode(places[0].partition(",")[2]).decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    inside = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^")\s>]+)', svg)
    assert all(place.startswith(("#", "data:image/")) for place in inside), inside


def test_mistakes_are_one_line(softhub: Command, adapter: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for extra, reason in (
        (("--compare", "me/none"), "me/none"),
        (("--compare", "./none"), "There is no adapter folder at './none'"),
        (("--html", tmp_path / "file" / "a.html"), "Cannot write"),
    ):
        done = softhub("inspect", adapter, "--base", base, *extra)
        assert (done.code, done.out) == (1, ""), done.err
        last = done.err.splitlines()[-1]  # what libraries show while they load stands before
        assert last.startswith("error: ") and reason in last


@pytest.mark.parametrize("arguments", [["--neighbors", "0"], []])
def test_wrong_usage(softhub: Command, adapter: Path, base: Path, arguments: list[str]) -> None:
    given = ["--base", str(base), *arguments] if arguments else []
    assert softhub("inspect", adapter, *given).code == 2
