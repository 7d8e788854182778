"""A trained prompt names the commit of its recipe, and nothing else of the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from softhub.training.provenance import git_record, script_folder

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    who = {"NAME": "A", "EMAIL": "a@example.org"}
    names = {f"GIT_{role}_{key}": v for role in ("AUTHOR", "COMMITTER") for key, v in who.items()}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **names}
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "mine.py").write_text("print(1)\n")
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    return folder


@needs_git
def test_commit_and_whether_it_is_what_ran(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_record(checkout / "recipes") == {"commit": commit, "dirty": False}
    (checkout / "notes.txt").write_text("untracked files change no recipe")
    assert git_record(checkout) == {"commit": commit, "dirty": False}
    (checkout / "recipes" / "mine.py").write_text("print(2)\n")
    assert git_record(checkout) == {"commit": commit, "dirty": True}


@needs_git
def test_no_checkout_and_no_commit_are_nothing(tmp_path):
    assert git_record(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_record(tmp_path) is None
    assert git_record(tmp_path / "missing") is None


def test_without_git_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_record(tmp_path) is None


def test_recipe_is_the_script_and_what_is_installed_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "recipes" / "mine.py"

    def run_as(file):
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=file))
        return script_folder()

    assert run_as(str(script)) == script.parent
    installed = tmp_path / "lib" / "site-packages" / "softhub" / "_recipes" / "classification.py"
    assert run_as(str(installed)) == tmp_path
    assert run_as(str(Path(sys.prefix, "bin", "pytest"))) == tmp_path
    assert run_as(None) == tmp_path
