"""Mixture weights: proportional, equal, and by temperature in between."""

import pytest

from softhub.errors import TaskError
from softhub.tasks.mixture import mixture_weights

SIZES = {"translation": 900, "summarization": 90, "code": 10}


def test_proportional_and_equal():
    assert mixture_weights(SIZES, "proportional") == pytest.approx(
        {"translation": 0.9, "summarization": 0.09, "code": 0.01}
    )
    assert mixture_weights(SIZES, "equal") == pytest.approx(dict.fromkeys(SIZES, 1 / 3))


def test_temperature_is_the_root_of_the_sizes():
    roots = {"translation": 30, "summarization": 90**0.5, "code": 10**0.5}
    total = sum(roots.values())
    expected = {name: root / total for name, root in roots.items()}
    assert mixture_weights(SIZES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sizes", "mixture", "words"),
    [
        (SIZES, "equally", "unknown mixture 'equally'.*equal"),
        ({"a": 3, "b": 0}, "equal", "none of b"),
        ({}, "equal", "none of all"),
    ],
)
def test_what_makes_no_mixture_is_refused(sizes, mixture, words):
    with pytest.raises(TaskError, match=words):
        mixture_weights(sizes, mixture)
