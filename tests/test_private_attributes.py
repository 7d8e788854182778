"""Private attributes of other libraries: each in one listed place, as a checklist for upgrades.

A library may change any name that begins with an underscore. When one is upgraded, read this list
beside its changes; the tests find the uses in the source and the names in the installed library.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import softhub

ROOT = Path(softhub.__file__).parent

PUBLIC = {"_asdict", "_fields", "_replace", "_exit"}
"""Documented, in spite of the underscore: of named tuples and `os`."""


class Private(NamedTuple):
    """One private name that softhub uses or overrides."""

    file: str
    name: str
    owner: str  # "module:Class", whose source has the name
    why: str


PRIVATE = [
    Private(
        "config.py",
        "_actions",
        "argparse:ArgumentParser",
        "lists the known flags, to name the closest to an unknown one",
    ),
    Private(
        "hub/remote/transport.py",
        "_GLOBAL_CLIENT_FACTORY",
        "huggingface_hub.utils:_http",
        "the client factory that the caller has set, which softhub's wraps instead of replacing it",
    ),
    Private(
        "hub/remote/transport.py",
        "_http",
        "huggingface_hub:utils",
        "the module that holds the client factory",
    ),
    Private(
        "metrics/evaluate_metric.py",
        "_compute",
        "evaluate:Metric",
        "what a subclass must define, by evaluate's documentation",
    ),
    Private(
        "metrics/evaluate_metric.py",
        "_info",
        "evaluate:Metric",
        "what a subclass must define, by evaluate's documentation",
    ),
    Private(
        "metrics/texts.py",
        "_extract_corpus_statistics",
        "sacrebleu.metrics.base:Metric",
        "counts of each text; public methods give the score of a corpus alone",
    ),
    Private(
        "model/packing.py",
        "_attn_implementation",
        "transformers:PretrainedConfig",
        "the attention function's name; `set_attn_implementation` is public, its getter is not",
    ),
    Private(
        "model/packing.py",
        "_supports_attention_backend",
        "transformers:PreTrainedModel",
        "whether a model calls attention functions by name",
    ),
    Private(
        "model/projection.py",
        "_modules",
        "torch.nn:Module",
        "exchanges the head of a shallow copy and leaves the model as it is",
    ),
    Private(
        "training/module.py",
        "_no_split_modules",
        "transformers:PreTrainedModel",
        "the layers that FSDP shards one by one; Accelerate asks the module for them",
    ),
    Private(
        "training/trainer.py",
        "_determine_best_metric",
        "transformers:Trainer",
        "says whether an evaluation is the best so far, whose checkpoint is saved",
    ),
    Private(
        "training/trainer.py",
        "_get_train_sampler",
        "transformers:Trainer",
        "Trainer's hook for another sampler",
    ),
    Private(
        "training/trainer.py",
        "_issue_warnings_after_load",
        "transformers:Trainer",
        "Trainer would warn that the frozen base's weights are not in the checkpoint",
    ),
    Private(
        "training/trainer.py",
        "_load_best_model",
        "transformers:Trainer",
        "restores the best checkpoint of a finished run without training",
    ),
    Private(
        "training/trainer.py",
        "_load_from_checkpoint",
        "transformers:Trainer",
        "loads the prompt of a finished run without training",
    ),
    Private(
        "training/trainer.py",
        "_save",
        "transformers:Trainer",
        "saves the prompt alone; the frozen base belongs to no checkpoint",
    ),
    Private(
        "training/trainer.py",
        "_save_checkpoint",
        "transformers:Trainer",
        "writes all files of a checkpoint, of which each library fails with an error of its own",
    ),
]


def is_private(name: str) -> bool:
    return name.startswith("_") and name.strip("_") != "" and not name.endswith("__")


def names_defined_in(tree: ast.AST) -> set[str]:
    """Private names that a file gives to its own functions, fields and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return found


def uses_on_others(tree: ast.AST) -> Iterator[str]:
    """Private names on anything but self and cls, by attribute, `getattr` or import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("softhub"):
            if node.module != "__future__":
                yield from (node.module or "").split(".")
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            by_name = ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr")
            if by_name and isinstance(node.args[1], ast.Constant):
                yield str(node.args[1].value)


def uses_of_bases(tree: ast.Module, module: str) -> Iterator[str]:
    """Private names of a class's own that a base class of another library has too."""
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases):
        try:
            mro = getattr(importlib.import_module(module), node.name).__mro__
        except ModuleNotFoundError as error:
            assert error.name in OPTIONAL
            continue
        foreign = [base for base in mro if base.__module__.split(".")[0] not in BUILT_IN]
        source = "\n".join(source_of(base) for base in foreign)
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef):
                name = part.name
            elif isinstance(part, ast.Attribute) and ast.unparse(part.value) != "cls":
                name = part.attr
            else:
                continue
            if is_private(name) and re.search(rf"\b{name}\b", source):
                yield name


BUILT_IN = ("softhub", "builtins", "abc", "typing", "enum")
OPTIONAL = ("lm_eval",)
"""Libraries that are not installed with those of the tests."""


def source_of(owner: Any) -> str:
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):  # written in C, or made as it ran
        return ""


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str]]:
    """Each private name of another library, with the file that uses it."""
    uses = set()
    for path in sorted(ROOT.rglob("*.py")):
        tree, file = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix()
        module = f"softhub/{file}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        # A property may have the name that it forwards to another library's object.
        own = names_defined_in(tree) - {entry.name for entry in PRIVATE}
        others = set(filter(is_private, uses_on_others(tree))) - own
        uses |= {(file, name) for name in (others | {*uses_of_bases(tree, module)}) - PUBLIC}
    return uses


def test_every_private_name_of_another_library_is_listed(found: set[tuple[str, str]]) -> None:
    listed = {(entry.file, entry.name) for entry in PRIVATE}
    assert found - listed == set(), "use a public name, or list it with the reason"
    assert listed - found == set(), "these are no longer used: take them off the list"


@pytest.mark.parametrize("entry", PRIVATE, ids=lambda entry: f"{entry.file}:{entry.name}")
def test_the_installed_library_has_it(entry: Private) -> None:
    module, name = entry.owner.split(":")
    owner = getattr(importlib.import_module(module), name)
    assert hasattr(owner, entry.name) or re.search(rf"\b{entry.name}\b", inspect.getsource(owner))
    assert entry.why


@pytest.mark.parametrize("entry", PRIVATE, ids=lambda entry: f"{entry.file}:{entry.name}")
def test_it_is_used_in_one_function(entry: Private) -> None:
    tree = ast.parse((ROOT / entry.file).read_text(encoding="utf-8"))
    name = re.compile(rf"\b{entry.name}\b")
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    using = {function.name for function in functions if name.search(ast.unparse(function))}
    assert len(using) == 1
