"""The wheel: the package and the recipes, and nothing that was fetched, compiled or tested."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_package_and_recipes_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in packed} == {"softhub"}
    assert "softhub/py.typed" in packed
    sources = {
        path.relative_to(ROOT / "recipes").as_posix()
        for pattern in ("*.py", "data/*.py", "configs/**/*.yaml", "tasks/**/*.yaml")
        for path in (ROOT / "recipes").glob(pattern)
    }
    recipes = {
        name.removeprefix("softhub/_recipes/") for name in packed if "softhub/_recipes/" in name
    }
    assert "classification.py" in recipes
    assert recipes >= sources
    assert not [name for name in recipes if name.startswith("data/files/")]
    assert not [name for name in packed if "__pycache__" in name]


def test_installed_wheel_copies_its_recipes(wheel: Path, tmp_path: Path) -> None:
    site, mine = tmp_path / "site", tmp_path / "mine"
    zipfile.ZipFile(wheel).extractall(site)
    entry = f"import sys; sys.path.insert(0, {str(site)!r}); from softhub.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", entry, "recipes", "copy", mine],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    packed = site / "softhub" / "_recipes"
    copied = {path.relative_to(mine) for path in mine.rglob("*") if path.is_file()}
    assert copied == {path.relative_to(packed) for path in packed.rglob("*") if path.is_file()}
    assert "softhub train --config" in done.stderr
