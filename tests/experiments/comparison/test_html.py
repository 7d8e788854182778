"""The report: it loads nothing, is valid, shows every figure, and escapes every name."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from softhub.errors import ConfigError
from softhub.experiments.comparison.html import render_html
from softhub.experiments.comparison.plots import overview
from softhub.experiments.comparison.results import read_results, write_results
from softhub.experiments.comparison.store import RowStore
from softhub.experiments.comparison.summary import summarize
from softhub.plotting import to_svg
from tests.experiments.comparison.rows import GROUPS, LABELS, REFERENCES, rows

HOSTILE = (
    "</title><script>alert(1)</script><img src=http://x.example onerror=a()> \"' $\\frac$ \x07&"
)
ABOUT = {
    "task": {"name": "mood", "description": "Good or bad.", "template": "Review: {text}"},
    "base": {"name": "example/tiny", "parameters": 1_000_000, "bytes": 4_000_000},
    "data": {"test": {"examples": 120, "groups": 30, "sha256": "ab" * 32}},
    "training": {"learning_rate": 0.01, "max_steps": 30},
}
MACHINE = {"processor": "an abacus", "packages": {"torch": "2.9"}}
VOID = {"meta", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Tags, attributes and texts; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def summary():
    return summarize(rows(), REFERENCES, GROUPS)


@pytest.fixture(scope="module")
def text(summary):
    return render_html(summary, ABOUT, MACHINE)


def pictures(text):
    """The plots of a page by their texts, as the SVG that its image elements contain."""
    found = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)">', text)
    return {alt: base64.b64decode(data).decode() for data, alt in found}


def test_nothing_is_loaded_or_run(text):
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "image", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on") and name != "style"
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("data:image/svg+xml;base64,"), (tag, name, value)
    style = re.search("<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style and "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(value for _, name, value in page.attributes if name == "content")
    assert policy.startswith(
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
    )


def test_plots_load_and_run_nothing_and_every_reference_has_its_target(text):
    for svg in pictures(text).values():
        page = Page(svg)
        assert not {"script", "foreignobject", "image", "a"} & set(page.tags)
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "@import" not in svg
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids)) > 10
        links = [value for _, name, value in page.attributes if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
        assert {*re.findall(r"url\(#([^)]+)\)", svg), *(link[1:] for link in links)} <= {*ids}
        assert svg.count("url(") == svg.count("url(#")


def test_every_plot_and_figure_is_there(text, summary):
    page = Page(text)
    words = " ".join(page.texts)
    assert len(re.findall("<figure>.*?</figure>", text, re.S)) == len(pictures(text)) == 3
    for svg in pictures(text).values():
        sheet = ElementTree.fromstring(svg).find("{*}style").text
        assert "prefers-color-scheme:dark" in sheet and "currentColor" in svg
    for line in summary.table:
        score = summary.score(line)
        assert line.name in words
        assert f"{100 * score.value:.1f} ({100 * score.low:.1f}" in words
        assert any(f"{line.name}: {100 * score.value:.1f}" in alt for alt in pictures(text))
    for part in ("an abacus", "torch 2.9", "ab" * 32, "learning rate", "Not run: zero-shot, bias"):
        assert part in words
    assert "template <b>{text}" in words


@pytest.mark.filterwarnings("ignore::UserWarning:softhub")  # no font has all of it
def test_captions_and_plots_are_readable_in_a_narrow_window(text):
    for part in re.findall(r'<div class="wide".*?</div>', text, re.DOTALL):
        assert ("<table" in part) != ("<img" in part)
        assert "caption" not in part  # it would scroll away with the table
    assert text.count('<div class="wide"') == 2 + text.count("<img")
    for name in re.findall(r'aria-labelledby="(\w+)"', text):
        assert f'class="caption" id="{name}"' in text
    assert "figure img { max-width: none; width: 46rem; }" in text


def test_hostile_names_stay_texts(text):
    hostile = [replace(row, setting=HOSTILE, details={HOSTILE: HOSTILE}) for row in rows()]
    labels = {label: f"{label}{HOSTILE}" for label in LABELS}
    hostile = [replace(r, predictions=[labels[p] for p in r.predictions]) for r in hostile]
    references = [labels[reference] for reference in REFERENCES]
    about = {**ABOUT, "task": {"name": HOSTILE, "description": HOSTILE, "template": HOSTILE}}
    found = render_html(
        summarize(hostile, references, GROUPS),
        {**about, "base": {"name": HOSTILE, "bytes": 1}, "training": {HOSTILE: [HOSTILE]}},
        {HOSTILE: {HOSTILE: HOSTILE}},
    )
    page = Page(found)
    assert set(page.tags) == set(Page(text).tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert any("<script>alert(1)</script>" in words for words in page.texts)
    tags = {tag for svg in pictures(text).values() for tag in Page(svg).tags}
    for svg in pictures(found).values():
        ElementTree.fromstring(svg)
        assert set(Page(svg).tags) <= tags


def test_a_comparison_of_little_has_a_report_too():
    for few in (rows()[:1], [replace(row, history=[]) for row in rows()[-1:]]):
        Page(render_html(summarize(few, REFERENCES, None), {}, {}))


@pytest.fixture
def folder(tmp_path):
    """The output_dir of a comparison."""
    store = RowStore(tmp_path / "run")
    labels = [{"label": label, "words": [label]} for label in LABELS]
    store.open({**ABOUT, "task": {**ABOUT["task"], "verbalizer": labels}})
    for row in rows():
        store.add(row)
    context = {"references": REFERENCES, "groups": GROUPS, "machine": MACHINE}
    (store.folder / "context.json").write_text(json.dumps(context))
    return store.folder


@pytest.mark.slow
def test_a_folder_gets_its_files(folder):
    results = write_results(folder)
    assert results.title == "mood on example/tiny: 120 test examples"
    names = ("report.json", "report.html", "overview.svg", "storage.svg")
    files = {name: (folder / name).read_bytes() for name in names}
    assert json.loads(files["report.json"])["lines"][0]["method"] == "majority label"
    svg = files["overview.svg"].decode()
    assert "prefers-color-scheme:dark" in ElementTree.fromstring(svg).find("{*}style").text
    again = to_svg(overview(results.summary), results.title)
    assert again == svg  # a file that is committed changes only with its figures


def test_a_folder_without_its_context_is_refused(folder, tmp_path):
    assert read_results(folder).summary.references == (*REFERENCES,)
    (folder / "context.json").unlink()
    with pytest.raises(ConfigError, match=r"not the reference answers .*same config"):
        read_results(folder)
    with pytest.raises(ConfigError, match="no comparison"):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"references": [', "{}"])
def test_a_folder_with_a_damaged_context_is_refused(folder, text):
    (folder / "context.json").write_text(text)
    with pytest.raises(ConfigError, match=r"context\.json is damaged: .*with the same config"):
        read_results(folder)
