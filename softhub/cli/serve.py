"""`softhub serve`: one base model with many prompts behind OpenAI's API."""

import contextlib
import functools
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from softhub.cli.options import (
    EXISTING_FILE,
    DeviceOption,
    ForceOption,
    HubOption,
    adapter_folder,
    option,
)
from softhub.errors import ConfigError, MissingDependency, SoftHubWarning, did_you_mean

if TYPE_CHECKING:
    from softhub.inference.engine import PromptModel
    from softhub.serving.keys import Keys

_MIB = 2**20
_KEEP_ALIVE = 75
"""Seconds for which an idle connection stays open: longer than clients and proxies keep theirs.

Otherwise the server closes one just as a client uses it again, and that request is lost.
"""
_FOR_VLLM = frozenset({"base", "prompts", "hub", "allow", "host", "port", "engine"})


class EngineName(str, Enum):
    """What `--engine` takes."""

    BUILT_IN = "built-in"
    VLLM = "vllm"


ServedBase = Annotated[
    str,
    typer.Argument(
        metavar="BASE",
        help="Base model: Hugging Face repository, folder or .gguf file.",
        envvar="SOFTHUB_BASE",
    ),
]


def serve(
    context: typer.Context,
    base: ServedBase,
    *,
    prompts: Annotated[
        list[str] | None,
        option(
            "Prompt to load at the start: NAME=FOLDER, NAME=NAMESPACE/NAME[@REVISION], or a lock "
            "file (.lock) with several. Repeatable.",
            "PROMPT",
            "--prompts",
        ),
    ] = None,
    pin: Annotated[
        list[str] | None,
        option("Name of a prompt whose keys and values are never discarded. Repeatable.", "NAME"),
    ] = None,
    hub: HubOption = None,
    allow: Annotated[
        list[str] | None,
        option(
            "Pattern of adapters of the hub that a request may name, such as 'me/*'; they are "
            "loaded on first use. Repeatable.",
            "PATTERN",
        ),
    ] = None,
    host: Annotated[str, option("Address to listen on.", "HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_keys: Annotated[
        Path | None,
        option(
            "File with a line 'sha256:HASH' for each API key. $SOFTHUB_API_KEY is a key too.",
            "FILE",
            **EXISTING_FILE,
        ),
    ] = None,
    admin_keys: Annotated[
        Path | None,
        option(
            "Same format, for keys that may load and unload prompts; $SOFTHUB_ADMIN_KEY too.",
            "FILE",
            **EXISTING_FILE,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows that the model runs at a time.")
    ] = 32,
    prefix_budget: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="MiB for keys and values of prompts.",
            show_default="a quarter of the free memory",
        ),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Maximum number of rows that wait.")] = 512,
    max_rows: Annotated[int, typer.Option(min=1, help="Maximum number of rows per request.")] = 128,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum number of new tokens of a row.")
    ] = 1024,
    max_body: Annotated[int, typer.Option(min=1, help="Maximum body size in KiB.")] = 1024,
    max_seconds: Annotated[int, typer.Option(min=1, help="Maximum seconds of a request.")] = 300,
    device: DeviceOption = None,
    force: ForceOption = False,
    engine: Annotated[
        EngineName,
        option(
            "built-in, or vllm: start vLLM with softhub's plug-in instead, which takes --prompts "
            "(folders or a lock file), --allow, --hub, --host and --port only.",
            "ENGINE",
        ),
    ] = EngineName.BUILT_IN,
) -> None:
    """Serve a base model and its prompts with OpenAI's HTTP API.

    On Ctrl-C or SIGTERM, the server answers the requests that it has accepted and then stops.
    """
    if engine is EngineName.VLLM:
        _start_vllm(context, base, [*(prompts or ()), *(allow or ())], hub, host, port)
    keys, admin = _keys(api_keys, "SOFTHUB_API_KEY"), _keys(admin_keys, "SOFTHUB_ADMIN_KEY")
    check_address(host, has_keys=bool(keys))
    with _explained_import():
        import uvicorn

        from softhub.serving.app import create_app
        from softhub.serving.builtin import BuiltInEngine
        from softhub.serving.limits import Limits
    from softhub.hub import Hub
    from softhub.inference.engine import PromptModel

    limits = Limits(max_body * 1024, max_rows, max_new_tokens, max_seconds, queue)
    folders = prompt_folders(prompts or (), hub)
    budget = None if prefix_budget is None else prefix_budget * _MIB
    with bound_socket(host, port) as bound:
        model = PromptModel.from_pretrained(base, prefix_budget=budget, device_map=device)
        _load(model, folders, pin or (), force)
        app = create_app(
            BuiltInEngine(model, batch_size=batch_size, queue=queue),
            hub=Hub(hub) if allow else None,
            allow=allow or (),
            keys=keys,
            admin_keys=admin,
            limits=limits,
        )
        _start_log(model, host, bound.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max_seconds,
        )
        with contextlib.suppress(KeyboardInterrupt):  # raised after the last answer
            uvicorn.Server(config).run(sockets=[bound])


def _start_vllm(
    context: typer.Context, base: str, prompts: Sequence[str], hub: str | None, host: str, port: int
) -> NoReturn:
    """Replace this process by vLLM; all options but those of `_FOR_VLLM` are refused."""
    from softhub.experiments.console import note
    from softhub.serving.vllm.launch import vllm_launch

    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if refused := sorted(given - _FOR_VLLM):
        raise ConfigError(
            f"--engine vllm does not take --{refused[0].replace('_', '-')}; start vLLM itself to "
            "pass it options: see docs/vllm.md."
        )
    api_key, admin_key = map(os.environ.get, ("SOFTHUB_API_KEY", "SOFTHUB_ADMIN_KEY"))
    check_address(host, has_keys=bool(_keys(None, "SOFTHUB_API_KEY")))
    launch = vllm_launch(base, prompts, host=host, port=port, api_key=api_key, admin_key=admin_key)
    note(f"starting: {launch}")
    sys.stderr.flush()
    named = {} if hub is None else {"SOFTHUB_HUB": hub}
    os.execve(launch.command[0], launch.command, {**os.environ, **named, **launch.environment})


def check_address(host: str, *, has_keys: bool) -> None:
    """Refuse an address that other machines reach, unless clients need a key.

    Raises:
        ConfigError: They do not.
    """
    from softhub.hub.names import is_loopback

    if not is_loopback(host) and not has_keys:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and there is no API key: set "
            "SOFTHUB_API_KEY, pass --api-keys FILE, or leave out --host."
        )


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; connections wait until the server accepts them.

    Loading the base may take minutes, after which it would be late to find the port in use.

    Raises:
        ConfigError: The address is in use, or is not one of this machine.
    """
    found: socket.socket | None = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere the option would let two servers share the port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except (OSError, UnicodeError) as error:
        if found is not None:
            found.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The server cannot listen on {_authority(host, port)}: {reason}. Free the port, or "
            "pass another --port, or a --host of this machine."
        ) from error
    return found


def _authority(host: str, port: int) -> str:
    """Return an address as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def prompt_folders(prompts: Sequence[str], hub: str | None) -> dict[str, Path]:
    """Return the folder of each prompt to load, by the name under which it is served.

    Raises:
        ConfigError: A name is missing, given twice, or the base model's.
        SoftHubError: An adapter cannot be found.
    """
    from softhub.hub import Hub
    from softhub.hub.lockfile import check_name
    from softhub.hub.names import split_reference
    from softhub.serving.names import check_prompt_name

    folders: dict[str, Path] = {}
    for prompt in prompts:
        name, equals, source = prompt.partition("=")
        if prompt.endswith(".lock"):
            found = Hub(hub).pull_locked(prompt)
        elif equals and source:
            ref, revision = (source, None) if Path(source).exists() else split_reference(source)
            folder = adapter_folder(ref, hub=hub, revision=revision)
            found = {check_name(name): folder}
        else:
            raise ConfigError(
                f"--prompts {prompt} has no name; expected NAME=FOLDER, NAME=NAMESPACE/NAME, or a "
                "lock file such as softhub.lock."
            )
        for each in found:
            check_prompt_name(each)
        if both := folders.keys() & found.keys():
            raise ConfigError(f"--prompts names {', '.join(sorted(both))} twice; rename one.")
        folders |= found
    return folders


def _keys(file: Path | None, variable: str) -> "Keys":
    from softhub.serving.keys import Keys

    return Keys.read(file, os.environ.get(variable))


@contextlib.contextmanager
def _explained_import() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"softhub serve requires the extra 'serve' ({error.name} is missing): run "
            "pip install 'softhub[serve]'"
        ) from error


def _load(
    model: "PromptModel", folders: Mapping[str, Path], pin: Sequence[str], force: bool
) -> None:
    if unknown := set(pin) - folders.keys():
        raise ConfigError(
            f"--pin {', '.join(sorted(unknown))} is not the name of a prompt in --prompts"
            f"{did_you_mean(min(unknown), folders.keys())}"
        )
    from softhub.serving.names import check_prompt_name

    for name, folder in folders.items():
        check_prompt_name(name, model.base.name)
        model.load_prompt(folder, name=name, force=force, pin=name in pin)


def _start_log(model: "PromptModel", host: str, port: int) -> None:
    """Log requests, warnings, and what uvicorn says, as lines of JSON on stderr."""
    from softhub.serving.request_log import JsonFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("softhub", "uvicorn"):
        logging.getLogger(name).handlers = [handler]  # in place of the one that writes plain lines
        logging.getLogger(name).setLevel(logging.INFO)
    warnings.showwarning = _log_warning
    memory = model.memory()
    fields = {
        "base": model.base.name,
        "prompts": memory.prompts,
        "address": f"http://{_authority(host, port)}",
        "prefix_budget_mib": memory.prefix_budget // _MIB,
    }
    logging.getLogger("softhub.serving").info("starting", extra={"fields": fields})


def _log_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Replace `warnings.showwarning` of a server."""
    kind = "" if issubclass(category, SoftHubWarning) else f"{category.__name__}: "
    _log_once(f"{kind}{message}")


@functools.lru_cache(maxsize=1000)
def _log_once(text: str) -> None:
    logging.getLogger("softhub.serving").warning(text)
