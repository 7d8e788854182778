"""The other end: the real client, let online, and an adapter to send through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import CommitOperationAdd, HfApi, close_session, constants

from .app import HubServer

REPO = "me/mood"
WEIGHTS = "adapter_model.safetensors"
CARD = b"""---
library_name: peft
base_model: org/base
pipeline_tag: text-generation
license: apache-2.0
language: en
datasets: [org/reviews]
tags: [softhub, soft-prompt, sentiment]
---
# Mood
"""


@contextmanager
def online(*, xet: bool = True) -> Iterator[None]:
    """Let the client of this process talk, quietly, through hf_xet or not."""
    changed = {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_XET": not xet,
    }
    before = {name: getattr(constants, name) for name in changed}
    for name, value in changed.items():
        setattr(constants, name, value)
    try:
        yield
    finally:
        close_session()
        for name, value in before.items():
            setattr(constants, name, value)


@contextmanager
def running(uploads: str = "regular") -> Iterator[HubServer]:
    """A hub that stores weights in one of the three ways, and a client that goes along."""
    with online(xet=uploads == "xet"), HubServer(uploads=uploads) as server:
        yield server


def api_of(server: HubServer, token: str | bool | None = None) -> HfApi:
    """The client for a server: as "me", with another token, or with none (`False`)."""
    return HfApi(endpoint=server.endpoint, token=server.token if token is None else token)


def push(
    api: HfApi,
    data: bytes = b"weights",
    *,
    revision: str = "main",
    parent_commit: str | None = None,
) -> str:
    """Create the repo if it is not there and commit a card and weights; returns the commit."""
    api.create_repo(REPO, exist_ok=True)
    made = api.create_commit(
        REPO,
        [CommitOperationAdd("README.md", CARD), CommitOperationAdd(WEIGHTS, data)],
        commit_message="Add",
        revision=revision,
        parent_commit=parent_commit,
    )
    return made.oid
