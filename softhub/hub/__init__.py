"""Hubs of soft prompts: folders in, folders out. `Hub` is the way in."""

from softhub.hub.hub import Hub
from softhub.hub.records import AdapterInfo, CommitInfo

__all__ = ["AdapterInfo", "CommitInfo", "Hub"]
