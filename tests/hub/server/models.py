"""Routes that search and describe models."""

from __future__ import annotations

from typing import Any

from .card import describe
from .hub import Hub
from .paging import iso, paged
from .routing import route
from .store import Commit, Repo
from .wire import HubError, Request, Response, answer_json

DESCRIBED = ("README.md", "adapter_config.json", "config.json")
SORTS = ("lastModified", "createdAt", "downloads", "likes", "trendingScore")
LISTED = [
    "_id",
    "id",
    "likes",
    "trendingScore",
    "private",
    "downloads",
    "tags",
    "pipeline_tag",
    "library_name",
    "createdAt",
    "modelId",
]
FULL = ["author", "sha", "lastModified", "gated", "disabled", "siblings"]


@route("GET", "/api/models", name="list_models")
def list_models(hub: Hub, request: Request) -> Response:
    """Search: every `filter` must be a tag; newest first unless `sort` says otherwise."""
    user = hub.user(request)
    sort = request.first("sort", "lastModified")
    if sort not in SORTS:
        raise HubError(400, f'"sort" must be one of [{", ".join(SORTS)}]')
    repos = [repo for repo in hub.store.repos.values() if hub.visible(repo, user)]
    infos = [info for repo in repos if _matches(info := _full(hub, repo, repo.head), request)]
    infos.sort(key=lambda info: (info[sort], info["lastModified"]), reverse=True)
    if request.first("direction") == "1":
        infos.reverse()
    limit = request.first("limit")
    page, headers = paged(hub, request, infos, int(limit) if limit else hub.page)
    return answer_json([_listed(info, request) for info in page], headers=headers)


def _matches(info: dict[str, Any], request: Request) -> bool:
    author, task = request.first("author"), request.first("pipeline_tag")
    gated = request.first("gated")
    return (
        all(tag in info["tags"] for tag in request.query.get("filter", []))
        and all(word in info["id"].lower() for word in request.first("search").lower().split())
        and author in ("", info["author"])
        and task in ("", info.get("pipeline_tag"))
        and (not gated or (gated == "true") == bool(info["gated"]))
    )


def _listed(info: dict[str, Any], request: Request) -> dict[str, Any]:
    names = [*LISTED]
    if request.query.get("expand"):
        names = ["_id", "id", *request.query["expand"]]
    names += FULL if request.flag("full") else []
    names += ["cardData"] if request.flag("cardData") else []
    names += ["config"] if request.flag("config") else []
    return {name: info[name] for name in names if name in info}


def _full(hub: Hub, repo: Repo, commit: Commit) -> dict[str, Any]:
    """Everything the API can tell of a repo at a commit."""
    return {
        "_id": repo.object_id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.id,
        "lastModified": iso(repo.head.date),
        "createdAt": iso(repo.created),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "trendingScore": 0,
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        "spaces": [],
        "usedStorage": sum(file.size for file in commit.files.values()),
        **_described(hub, commit),
    }


def _described(hub: Hub, commit: Commit) -> dict[str, Any]:
    if commit.id not in hub.described:
        small = {
            path: hub.store.read(file) if path in DESCRIBED else b""
            for path, file in commit.files.items()
        }
        hub.described[commit.id] = describe(small)
    return hub.described[commit.id]


@route("GET", "/api/models/{repo}/revision/{revision}", name="model_info")
@route("GET", "/api/models/{repo}", name="model_info")
def model_info(hub: Hub, request: Request) -> Response:
    """One model at a revision, with its files; `blobs` adds sizes and hashes."""
    repo = hub.readable(request)
    commit = repo.commit(request.params.get("revision", "main"))
    info = _full(hub, repo, commit)
    if request.flag("blobs"):
        info["siblings"] = [_sibling(path, commit) for path in sorted(commit.files)]
    if request.flag("securityStatus"):
        info["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    if expand := request.query.get("expand"):
        info = {name: info[name] for name in ("_id", "id", *expand) if name in info}
    return answer_json(info)


def _sibling(path: str, commit: Commit) -> dict[str, Any]:
    file = commit.files[path]
    sibling: dict[str, Any] = {"rfilename": path, "blobId": file.oid, "size": file.size}
    if file.sha256:
        sibling["lfs"] = {
            "sha256": file.sha256,
            "size": file.size,
            "pointerSize": file.pointer_size,
        }
    return sibling
