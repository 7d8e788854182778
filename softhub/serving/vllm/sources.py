"""`SOFTHUB_PROMPTS`: which prompts a server starts with, and which it may pull on first use.

A comma separates the parts. Each is a folder with an adapter or with several of them, NAME=FOLDER,
a lock file (a name that ends in `.lock`), or an adapter of a hub: `me/sentiment`,
`me/sentiment@v1`, or a pattern such as `me/*`. The hub is that of `SOFTHUB_HUB`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import CONFIG
from softhub.config import expand_user
from softhub.errors import ConfigError, PromptNotLoaded
from softhub.hub import Hub
from softhub.hub.names import DEFAULT_REVISION, is_permitted, split_reference

VARIABLE = "SOFTHUB_PROMPTS"
ADMIN_KEY = "SOFTHUB_ADMIN_KEY"
_EXPECTED = "a folder, NAME=FOLDER, a .lock file, NAMESPACE/NAME[@REVISION], or a pattern like me/*"


@dataclass(frozen=True)
class Sources:
    """Where prompts come from.

    Attributes:
        folders: Adapter folders to load at start, by name.
        locks: Lock files whose prompts are pulled and loaded at start.
        patterns: Names, and patterns of names, that may be pulled from the hub.
    """

    folders: Mapping[str, Path]
    locks: tuple[Path, ...] = ()
    patterns: tuple[str, ...] = ()

    def at_start(self, hub: Hub) -> dict[str, Path]:
        """Return all folders to load at start, after pulling those of lock files.

        Raises:
            HubError: A lock file or a prompt cannot be read.
            InvalidAdapter: A prompt is not the locked one.
        """
        found = dict(self.folders)
        for lock in self.locks:
            found.update(hub.pull_locked(lock))
        return found

    def allows(self, name: str) -> bool:
        """Return whether a name may be pulled from the hub."""
        return is_permitted(name, self.patterns)

    def pull(self, name: str, hub: Hub) -> Adapter:
        """Return an adapter of the hub, checked.

        Raises:
            PromptNotLoaded: It may not be pulled.
            HubError: It cannot be pulled.
            InvalidAdapter: It is damaged or hostile.
        """
        if not self.allows(name):
            raise PromptNotLoaded(f"The model {name!r:.200} does not exist.")
        repo_id, revision = split_reference(name)
        return hub.read(repo_id, revision=revision or DEFAULT_REVISION)


def parse_sources(text: str) -> Sources:
    """Parse the value of `SOFTHUB_PROMPTS`.

    Raises:
        ConfigError: A part is none of what is expected, or two prompts have one name.
    """
    folders: dict[str, Path] = {}
    locks, patterns = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, path = part.partition("=")
        if equals:
            _add(folders, {name: _adapter(expand_user(path), part)})
        elif expand_user(part).is_dir():
            _add(folders, _adapters(expand_user(part)))
        elif part.endswith(".lock"):
            locks.append(expand_user(part))
        elif part.count("/") == 1 and not part.startswith((".", "/", "~")):
            patterns.append(part)
        else:
            raise ConfigError(f"{VARIABLE} has {part!r:.200}; expected {_EXPECTED}.")
    return Sources(folders, tuple(locks), tuple(patterns))


def _add(folders: dict[str, Path], more: Mapping[str, Path]) -> None:
    twice = sorted(folders.keys() & more.keys())
    if twice:
        raise ConfigError(
            f"{VARIABLE} has two prompts named {twice[0]!r}; name one of them with NAME=FOLDER."
        )
    folders.update(more)


def _adapter(folder: Path, part: str) -> Path:
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{VARIABLE} has {part!r:.200}, where there is no adapter folder.")
    return folder


def _adapters(folder: Path) -> dict[str, Path]:
    """Return the folder itself if it is an adapter, or else the adapters in it, by name."""
    if (folder / CONFIG).is_file():
        return {folder.resolve().name: folder}
    found = {path.name: path for path in sorted(folder.iterdir()) if (path / CONFIG).is_file()}
    if not found:
        raise ConfigError(f"{VARIABLE} has {str(folder)!r}, which contains no adapter folder.")
    return found
