"""The benchmark scripts, which take hours, import only what the code still has."""

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_name_that_a_script_imports_exists(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    imports = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("softhub")
        for alias in node.names
    ]
    missing = [name for name in imports if not hasattr(importlib.import_module(name[0]), name[1])]
    assert missing == []
