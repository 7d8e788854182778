"""The guide and the security page speak of what there is."""

import re
from pathlib import Path

import pytest

from softhub.hub import Hub
from softhub.hub.query import SORTS, Query

ROOT = Path(__file__).parents[2]


def test_every_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"\b(test_\w+)`", page)
    assert len(names) > 20
    for name in names:
        assert f"def {name}(" in sources, name
    for place in re.findall(r"`(tests/[\w/.]+?)(?:::\w+)?`", page):
        assert (ROOT / place).exists(), place


def test_every_promise_names_something() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        assert "`" in row.split("|")[-2], row


def test_the_guide_names_every_filter_and_order() -> None:
    guide = (ROOT / "docs" / "hub.md").read_text()
    for name in (*Query.__dataclass_fields__, *SORTS):
        assert name in ("limit", "sort") or f"`{name}`" in guide, name


VERBS = (
    *("push", "pull", "list", "search", "info", "log", "diff", "tag", "untag"),
    *("verify", "deprecate", "delete", "similar", "whoami"),
)


@pytest.mark.parametrize("verb", VERBS)
def test_the_hub_has_every_verb(verb: str) -> None:
    assert callable(getattr(Hub, verb))
    assert getattr(Hub, verb).__doc__
