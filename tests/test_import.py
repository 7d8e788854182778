"""`import softhub` is light, and every public name is where it says it is."""

import subprocess
import sys

import pytest

import softhub

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets")


def modules_after(statement: str) -> set[str]:
    """Run `statement` in a fresh interpreter and return the top-level modules it loaded."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["softhub", "softhub.errors"])
def test_import_loads_nothing_heavy(module: str) -> None:
    assert modules_after(f"import {module}").isdisjoint(HEAVY)


@pytest.mark.parametrize("name", softhub.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(softhub, name) is not None
    assert name in dir(softhub)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_bass'"):
        softhub.load_bass  # noqa: B018
