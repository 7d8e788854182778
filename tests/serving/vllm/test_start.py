"""How the server starts: versions, settings, the command, and what the plug-in imports."""

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from softhub.errors import ConfigError, MissingDependency
from softhub.serving.vllm import launch
from softhub.serving.vllm.launch import vllm_launch
from softhub.serving.vllm.plugin import SoftHubPlugin, admin_keys, check_settings
from softhub.serving.vllm.supported import CONTRACT, VERSIONS, check_version

ROOT = Path(__file__).parents[3]
GOOD = {
    "enable_prompt_embeds": True,
    "is_encoder_decoder": False,
    "logprobs_mode": "raw_logprobs",
}
# A finder that refuses to find what the plug-in may not import.
ISOLATED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("peft", "transformers", "accelerate", "datasets"):
            raise AssertionError(f"the plug-in imports {name}")

sys.meta_path.insert(0, Refuse())
for name in ("plugin", "generation", "guard", "launch", "options", "prompts", "rows", "scoring",
             "served", "offline", "sources", "supported", "api_types", "errors", "blocks"):
    __import__(f"softhub.serving.vllm.{name}")
import softhub.inference.prediction
"""


def test_the_plugin_imports_neither_peft_nor_transformers():
    done = subprocess.run([sys.executable, "-c", ISOLATED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_entry_point_names_the_plugin():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["vllm.endpoint_plugins"][SoftHubPlugin.name]
    entry = importlib.metadata.EntryPoint(SoftHubPlugin.name, value, "vllm.endpoint_plugins")
    assert entry.load() is SoftHubPlugin


@pytest.mark.parametrize("version", [f"{VERSIONS[-1]}.0", f"{VERSIONS[-1]}.1+cpu"])
def test_versions_that_were_run_are_accepted(version):
    check_version(version)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "0.3", "1.32.0", "0.320.0", "0.0.0.dev"])
def test_versions_that_were_not_run_are_refused(version):
    with pytest.raises(ConfigError, match="was run with"):
        check_version(version)


@pytest.mark.parametrize(("module", "name", "why"), CONTRACT, ids=lambda value: str(value)[-40:])
def test_the_installed_vllm_has_what_the_plugin_uses(module, name, why):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    kind, _, attribute = name.partition(".")
    found = getattr(importlib.import_module(module), kind)
    assert not attribute or has(found, attribute), why


def has(kind, attribute):
    """Whether a class has an attribute, or its objects are given one when they are made."""
    declared = any(attribute in getattr(each, "__annotations__", ()) for each in kind.__mro__)
    sources = (inspect.getsource(each) for each in kind.__mro__[:-1] if each.__module__[0] == "v")
    return hasattr(kind, attribute) or declared or any(f"self.{attribute} = " in s for s in sources)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"enable_prompt_embeds": False}, "--enable-prompt-embeds"),
        ({"is_encoder_decoder": True}, "softhub serve"),
        ({"logprobs_mode": "processed_logprobs"}, "--logprobs-mode"),
    ],
)
def test_settings_that_would_answer_wrongly_stop_the_start(change, flag):
    check_settings(SimpleNamespace(**GOOD), None)
    with pytest.raises(ConfigError, match=flag):
        check_settings(SimpleNamespace(**{**GOOD, **change}), None)


def test_several_processes_and_loads_exclude_each_other(monkeypatch):
    check_settings(SimpleNamespace(**GOOD), 4)
    monkeypatch.setenv("SOFTHUB_ADMIN_KEY", "k" * 24)
    check_settings(SimpleNamespace(**GOOD), 1)
    with pytest.raises(ConfigError, match="--api-server-count is 4"):
        check_settings(SimpleNamespace(**GOOD), 4)


def test_a_short_key_for_administration_is_refused(monkeypatch):
    assert not admin_keys()
    monkeypatch.setenv("SOFTHUB_ADMIN_KEY", "short")
    with pytest.raises(ConfigError, match="openssl"):
        admin_keys()


def test_the_command_is_stock_vllm_with_the_plugin(monkeypatch, adapter):
    monkeypatch.setattr(launch, "_installed", lambda: "0.32.0")
    folder = adapter("mood")
    found = vllm_launch(
        "./base",
        [str(folder), "me/*"],
        port=9,
        admin_key="secret-of-24-chars",
        options=["--x"],
    )
    words = list(found.command)
    assert words[0] == sys.executable and words[3:5] == ["--model", "./base"]
    assert words[-1] == "--x" and "--enable-prompt-embeds" in words
    assert words[words.index("--block-size") + 1] == "32"
    assert found.environment["VLLM_PLUGINS"] == "softhub"
    assert found.environment["SOFTHUB_PROMPTS"] == f"{folder},me/*"
    assert "secret" not in str(found) and str(found).startswith("VLLM_PLUGINS=softhub ")


def test_the_command_is_refused_before_vllm_starts(monkeypatch):
    monkeypatch.setattr(launch, "DISTRIBUTIONS", ("surely-not-installed",))
    with pytest.raises(MissingDependency, match="pip install"):
        vllm_launch("./base")
    monkeypatch.setattr(launch, "_installed", lambda: "0.31.0")
    with pytest.raises(ConfigError, match=r"0\.31\.0"):
        vllm_launch("./base")
    monkeypatch.setattr(launch, "_installed", lambda: "0.32.0")
    with pytest.raises(ConfigError, match="comma"):
        vllm_launch("./base", ["a,b"])
    with pytest.raises(ConfigError, match="SOFTHUB_PROMPTS"):
        vllm_launch("./base", ["./missing"])


def test_the_page_needs_at_most_six_commands_from_nothing_to_an_answer():
    start = (ROOT / "docs" / "vllm.md").read_text().split("\n## ")[1]
    blocks = re.findall(r"```bash\n(.*?)```", start, re.DOTALL)
    stock, request, cpu = (block.replace("\\\n", "").strip().splitlines() for block in blocks)
    assert request[0].startswith("curl ")
    for commands in (stock, cpu):
        assert "--enable-prompt-embeds" in commands[-1]
        assert len(commands + request) <= 6
