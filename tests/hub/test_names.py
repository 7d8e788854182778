"""References: which of them patterns permit."""

import pytest

from softhub.hub.names import is_permitted


@pytest.mark.parametrize(
    ("reference", "patterns", "permitted"),
    [
        ("me/mood", ["me/*"], True),
        ("me/mood@v3", ["me/*"], True),
        ("me/mood@v2", ["me/mood@v2"], True),
        ("me/mood@v3", ["me/mood@v2"], False),
        ("me/mood", ["me/mood@v2"], False),
        ("you/mood", ["me/*"], False),
        ("me/*", ["me/*"], False),
        ("../mood", ["*"], False),
        ("me/mood", [], False),
    ],
)
def test_a_reference_is_permitted_by_its_repository_or_as_it_is(reference, patterns, permitted):
    assert is_permitted(reference, patterns) is permitted
