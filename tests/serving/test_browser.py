"""The page in headless Chromium."""

import pytest

from softhub.adapter import layout
from softhub.hub import Hub
from tests.prompts import MOOD, TEXTS


@pytest.mark.slow
def test_in_chromium_the_page_asks_this_host_only_and_its_console_is_quiet(page, browser):
    from playwright.sync_api import expect

    hosts, faults = set(), []
    for width, scheme in [(1200, "light"), (360, "dark")]:
        viewport = {"width": width, "height": 800}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        tab = context.new_page()
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(page.url)
        tab.get_by_label("Text", exact=True).fill(TEXTS[0])
        tab.get_by_role("button", name="Ask").press("Enter")
        tab.wait_for_selector("article[aria-busy=false] .text")
        tab.wait_for_selector("article meter")
        assert tab.url.rstrip("/") == page.url  # htmx has put the answers in place
        tab.get_by_label("Task").fill("topic")
        expect(tab.locator("#adapters tbody tr")).to_have_count(1)
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        tab.get_by_role("link", name="me/topic").click()
        tab.wait_for_selector("#card-title")
        assert hosts == {page.url.split("/")[2]}
        assert not faults
        context.close()


@pytest.mark.slow
def test_in_chromium_without_javascript_the_page_works_by_keyboard(page, browser):
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto(page.url)
    tab.keyboard.press("Tab")
    assert tab.locator(":focus").inner_text() == "Skip to the content"
    tab.get_by_label("Text", exact=True).fill(TEXTS[0])
    tab.get_by_role("button", name="Ask").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/try")
    assert tab.locator("article meter").count() >= 2


# --- accessibility ---

LOOKS = [
    pytest.param(width, scheme, id=f"{scheme}-{width}")
    for width in (1200, 320)
    for scheme in ("light", "dark")
]
GRAVE = ("serious", "critical")
CODE = f"\n\n```python\n{'a_long_name = ' * 20}1\n```\n\n"
TABLE = f"| {' | '.join(['a_long_name'] * 8)} |\n|{'---|' * 8}\n"


def grave_findings(tab):
    """What axe-core finds in a page; contrast is judged in the colors that are shown."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [
        (each["id"], node["target"], node["failureSummary"])
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.fixture
def wide_card(page, adapter):
    """An adapter whose card has lines and a table that are wider than a phone."""
    folder = adapter("wide", 4, MOOD, seed=6)
    card = folder / layout.CARD
    card.write_text(card.read_text() + CODE + TABLE)
    Hub().push(folder, "me/wide", tags=["v1"])
    return "/adapters/me/wide"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_axe_finds_nothing_serious_on_any_page(width, scheme, page, browser, wide_card):
    pytest.importorskip("axe_playwright_python")
    viewport = {"width": width, "height": 800}
    tab = browser.new_context(viewport=viewport, color_scheme=scheme).new_page()
    found = {}
    for path in ("/", "/?task=nothing", "/adapters/me/hostile", wide_card):
        tab.goto(page.url + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path
        found[path] = grave_findings(tab)
    tab.goto(page.url)
    tab.get_by_label("Text", exact=True).fill(TEXTS[0])
    tab.get_by_role("button", name="Ask").press("Enter")
    tab.wait_for_selector(".columns[aria-busy=false] article .text")
    found["answers"] = grave_findings(tab)
    for box in tab.locator("input[name=model]").all():
        box.set_checked(False)
    tab.get_by_role("button", name="Ask").press("Enter")
    tab.wait_for_selector("#answers [role=alert]")
    found["an error"] = grave_findings(tab)
    assert {path: each for path, each in found.items() if each} == {}


@pytest.mark.slow
def test_axe_would_find_what_is_wrong(page, browser):
    pytest.importorskip("axe_playwright_python")
    tab = browser.new_context().new_page()
    tab.goto(page.url)
    tab.evaluate("document.querySelector('label[for=text]').remove()")
    assert [name for name, *_ in grave_findings(tab)] == ["label"]
