"""The page without and with JavaScript: what it shows, and that nothing comes from elsewhere."""

import re
import threading
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from softhub.adapter import layout
from softhub.adapter.manifest import Manifest, RecordedMetric
from softhub.hub import Hub
from tests.prompts import MOOD, TEXTS


def test_the_first_page_shows_what_is_served_in_few_bytes(page):
    answer = page.http.get("/")
    total = len(answer.content)
    for name in ("base", "mood", "topic", "summary", "me/mood", "me/topic"):
        assert f'value="{name}"' in answer.text
    assert "other/summary" not in answer.text
    loaded = re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text)
    assert len(loaded) == 3
    for path in loaded:
        with page.http.stream("GET", path) as each:
            assert each.status_code == 200
            total += sum(len(part) for part in each.iter_raw())
    assert total <= 60_000


def test_everything_comes_from_this_host(page):
    for path in ("/", "/adapters/me/mood", "/static/style.css", "/static/htmx.min.js"):
        answer = page.http.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "html" in answer.headers["content-type"]:
            assert not re.findall(r"(?:src|action)=\"(?:https?:)?//", answer.text)
            assert not re.findall(r"<link[^>]*//", answer.text)
            assert "style=" not in answer.text and "<style" not in answer.text
            assert "onclick" not in answer.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"text": "mood"}, {"me/mood", "me/hostile"}),
        ({"task": "topic"}, {"me/topic"}),
        ({"tag": "v1"}, {"me/mood", "me/topic"}),
        ({"base_model": "example/tiny-llama"}, {"me/mood", "me/topic", "me/hostile"}),
        ({"base_model": "example/other"}, set()),
        ({"min_score": "0.5"}, set()),
        ({"text": "<script>"}, set()),
    ],
)
def test_adapters_are_searched_and_filtered(query, found, page):
    for headers in ({}, {"HX-Request": "true", "HX-Target": "adapters"}):
        text = page.http.get("/", params=query, headers=headers).text
        assert set(re.findall(r'href="/adapters/([^"]+)"', text)) == found
        assert ("<html" in text) == (not headers)
        assert "<script>" not in text.replace('<script src="/static', "")


def test_a_score_that_is_no_number_is_refused(page):
    assert page.http.get("/", params={"min_score": "much"}).status_code == 400


def test_a_card_is_rendered_without_what_it_could_run(page):
    text = page.http.get("/adapters/me/hostile").text
    assert "<td><strong>2</strong></td>" in text  # markdown is rendered
    assert "<script>alert" not in text and "<img" not in text
    assert 'href="javascript' not in text
    assert "&lt;script&gt;alert" in text
    mood = page.http.get("/adapters/me/mood").text
    assert "<dd>prompt</dd>" in mood
    assert mood.count("<code>") >= 1  # its versions
    for path in ("/adapters/other/summary", "/adapters/me/none", "/adapters/me/..%2Fx"):
        assert page.http.get(path).status_code == 404


def pushed(page, adapter, card):
    """Push an adapter with a card, or without one; return the path of its page."""
    folder = adapter("odd", 4, MOOD, seed=7)
    (folder / layout.CARD).unlink()
    if card is not None:
        (folder / layout.CARD).write_text(card)
    Hub().push(folder, "me/odd")
    return "/adapters/me/odd"


def test_an_adapter_without_a_card_has_a_page(page, adapter):
    answer = page.http.get(pushed(page, adapter, None))
    assert answer.status_code == 200 and "me/odd" in answer.text


def test_a_long_card_is_shown_as_it_is_written(page, adapter):
    answer = page.http.get(pushed(page, adapter, "<script>" + "[" * 60_000))
    assert answer.status_code == 200 and answer.elapsed.total_seconds() < 2
    assert "<pre>&lt;script&gt;[[[" in answer.text


def test_a_card_is_rendered_beside_the_event_loop(page, adapter, monkeypatch):
    path = pushed(page, adapter, "# Title")
    threads, render = [], MarkdownIt.render

    def watched(*arguments):
        threads.append(threading.current_thread())
        return render(*arguments)

    monkeypatch.setattr(MarkdownIt, "render", watched)
    assert "<h1>Title</h1>" in page.http.get(path).text
    assert threads and page.thread not in threads


def test_a_huge_score_is_no_error_of_the_page(page, adapter):
    folder = adapter("huge", 4, MOOD, seed=7)
    manifest = Manifest.from_bytes((folder / layout.MANIFEST).read_bytes())
    huge = RecordedMetric("accuracy", 10**19, None, None, "test", 3, {})
    (folder / layout.MANIFEST).write_bytes(replace(manifest, metrics=(huge,)).to_bytes())
    Hub().push(folder, "me/huge")
    assert "me/huge" in page.http.get("/").text


# --- the try-out ---

FORM = {"content-type": "application/x-www-form-urlencoded"}


def asked(page, names, text=TEXTS[0], **headers):
    data = [("text", text), *(("model", name) for name in names)]
    from urllib.parse import urlencode

    return page.http.post("/try", content=urlencode(data), headers={**FORM, **headers})


def test_without_javascript_the_answers_are_on_the_next_page(page):
    text = asked(page, ["mood", "me/topic", "summary", "base"]).text
    assert "<html" in text and 'hx-get="/try/' not in text
    label = page.model.predict(TEXTS[:1], prompt="mood")[0]
    assert f"<strong>{label.label}</strong>" in text
    for value in label.probabilities.values():
        assert f'value="{value:.4f}"' in text
    summary = page.model.generate(TEXTS[:1], prompt="summary")[0]
    assert shown(text, 3) == escaped(summary)
    assert shown(text, 4) == escaped(page.model.generate(TEXTS[:1])[0])
    assert 'value="me/topic" checked' in text


def shown(text, index):
    return re.search(rf'id="c{index}">.*?<p class="text">(.*?)</p>', text, re.DOTALL)[1]


def escaped(text):
    from markupsafe import escape

    return str(escape(text))


def test_with_htmx_the_answers_are_followed(page):
    text = asked(page, ["mood", "summary"], **{"HX-Request": "true"}).text
    assert "<html" not in text
    for _ in range(500):
        follow = re.search(r'hx-get="(/try/[0-9a-f]+[?]seen=[0-9]+)"', text)
        if not follow:
            break
        text = page.http.get(follow[1]).text
    assert shown(text, 2) == escaped(page.model.generate(TEXTS[:1], prompt="summary")[0])


def test_labels_of_a_try_out_are_one_batch(page):
    sizes, predict = [], page.model.predict_batch

    def watched(requests, **options):
        sizes.append(len(requests))
        return predict(requests, **options)

    page.model.predict_batch = watched
    asked(page, ["mood", "topic", "me/mood"])
    assert sizes == [3]


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        ([], "x", "Choose from 1 to 6"),
        ([f"me/p{i}" for i in range(7)], "x", "Choose from 1 to 6"),
        (["mood"], "  ", "There is no text"),
        (["other/summary"], "x", "does not exist"),
    ],
)
def test_a_wrong_try_out_says_why(names, text, message, page):
    for headers in ({}, {"HX-Request": "true"}):
        assert message in asked(page, names, text, **headers).text


def test_other_sites_cannot_send_the_form(page):
    answer = asked(page, ["mood"], **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert page.http.get("/try/unknown").status_code == 404
