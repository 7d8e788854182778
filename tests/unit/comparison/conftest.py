"""Loaded tiny bases, shared by the tests of a session: nobody may change them."""

import pytest

from softhub.base import load_base


@pytest.fixture(scope="session")
def loaded(tiny_base):
    """`loaded(kind)`: the tiny base of that kind, loaded once, named `example/tiny-<kind>`."""
    bases = {}

    def base_of(kind):
        if kind not in bases:
            bases[kind] = load_base(tiny_base(kind), name=f"example/tiny-{kind}")
        return bases[kind]

    return base_of
