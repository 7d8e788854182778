"""Routes that give out xet tokens: where hf_xet is to write, and where to read."""

from __future__ import annotations

from .hub import Hub
from .routing import route
from .wire import HubError, Request, Response, answer_json


@route("GET", "/api/models/{repo}/xet-write-token/{revision}", name="xet_token")
def write_token(hub: Hub, request: Request) -> Response:
    """A folder of its own for one upload session."""
    hub.writable(request)
    return _grant(hub, request, "write")


@route("GET", "/api/models/{repo}/xet-read-token/{revision}", name="xet_token")
def read_token(hub: Hub, request: Request) -> Response:
    """A folder with the xet files of one commit."""
    repo = hub.readable(request)
    hub.admit(request, repo)
    commit = repo.commit(request.params["revision"])
    return _grant(
        hub, request, "read", [file.key for file in commit.files.values() if file.xet_hash]
    )


def _grant(hub: Hub, request: Request, kind: str, keys: list[str] | None = None) -> Response:
    if hub.uploads != "xet":
        raise HubError(404, "Xet is not enabled on this hub")
    folder = hub.xet.new_folder(kind)
    for key in keys or []:
        hub.xet.put(folder, hub.store.objects[key])
    grant = hub.xet.grant(folder)
    headers = {
        "X-Xet-Cas-Url": grant["casUrl"],
        "X-Xet-Access-Token": grant["accessToken"],
        "X-Xet-Token-Expiration": str(grant["exp"]),
    }
    return answer_json(grant, headers=headers)
