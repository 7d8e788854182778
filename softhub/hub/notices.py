"""Warnings about what a push changes and about what is pulled."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from softhub.adapter.adapter import Adapter
from softhub.adapter.front_matter import DEPRECATED
from softhub.adapter.layout import CARD
from softhub.errors import HubError, InvalidAdapter, SoftHubWarning
from softhub.hub.describe import base_changes, describe
from softhub.hub.names import DEFAULT_REVISION
from softhub.hub.records import CommitInfo
from softhub.hub.transfer import Fetched

if TYPE_CHECKING:
    from softhub.hub.local.local_hub import LocalHub
    from softhub.hub.remote.remote_hub import RemoteHub


def warn_of_another_base(
    backend: LocalHub | RemoteHub, adapter: Adapter, commit: CommitInfo
) -> None:
    """Warn if a push changed the base model; it is published, so that nothing here may fail."""
    with suppress(HubError, InvalidAdapter):
        before = backend.config(commit.repo_id, str(commit.parent))
        for change in base_changes(before, adapter.config):
            warnings.warn(f"{commit.repo_id}: {change}", SoftHubWarning, stacklevel=3)


def warn_if_deprecated(backend: LocalHub | RemoteHub, fetched: Fetched, revision: str) -> None:
    """Warn if the newest card says so: an older revision cannot know of its deprecation."""
    card = fetched.adapter.files.get(CARD, b"")
    if revision == DEFAULT_REVISION and DEPRECATED.encode() not in card:
        return  # parsing the card would take longer than all the rest of a pull
    info = describe(fetched.repo_id, fetched.adapter, revision=fetched.revision)
    if revision != DEFAULT_REVISION:
        with suppress(HubError, InvalidAdapter):
            info = backend.info(fetched.repo_id, DEFAULT_REVISION)
    if info.deprecated:
        instead = f"; use {info.replacement} instead" if info.replacement else ""
        message = f"{fetched.repo_id} is deprecated: {info.deprecated}{instead}"
        warnings.warn(message, SoftHubWarning, stacklevel=4)
