"""Routes that read files: the tree, paths, history, and the bytes themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode

from .hub import Hub
from .paging import iso, paged
from .routing import route
from .store import Commit, Repo, StoredFile, folders_of, tree_id
from .wire import HubError, Request, Response, answer_bytes, answer_json

TREE_PAGE = 1000
EXPANDED_TREE_PAGE = 50
COMMITS_PAGE = 50


@route("GET", "/api/models/{repo}/tree/{revision}", name="tree")
@route("GET", "/api/models/{repo}/tree/{revision}/{rest}", name="tree")
def tree(hub: Hub, request: Request) -> Response:
    """The files and folders of a folder, in pages."""
    repo = hub.readable(request)
    revision = request.params["revision"]
    commit = repo.commit(revision)
    root = request.params.get("rest", "").strip("/")
    prefix = f"{root}/" if root else ""
    below = [path for path in commit.files if path.startswith(prefix)]
    if not below:
        message = f"{root} does not exist on {revision}"
        raise HubError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit.id})
    entries = [*folders_of(path.removeprefix(prefix) for path in below)]
    names = sorted(prefix + name for name in entries) + sorted(below)
    if not request.flag("recursive"):
        names = [name for name in names if "/" not in name.removeprefix(prefix)]
    expand = request.flag("expand")
    page, headers = paged(hub, request, names, EXPANDED_TREE_PAGE if expand else TREE_PAGE)
    return answer_json([entry(repo, commit, name, expand) for name in page], headers=headers)


def entry(repo: Repo, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """A file or folder as the tree lists it; expanded, with its last commit."""
    file = commit.files.get(path)
    if file is None:
        inner = _below(commit, path)
        listed: dict[str, Any] = {"type": "directory", "oid": tree_id(inner), "size": 0}
    else:
        listed = {"type": "file", "oid": file.oid, "size": file.size}
        if file.sha256:
            listed["lfs"] = {
                "oid": file.sha256,
                "size": file.size,
                "pointerSize": file.pointer_size,
            }
        if file.xet_hash:
            listed["xetHash"] = file.xet_hash
    listed["path"] = path
    if expand:
        last = _last_change(repo, commit, path)
        listed["lastCommit"] = {"id": last.id, "title": last.title, "date": iso(last.date)}
    return listed


def _below(commit: Commit, folder: str) -> dict[str, StoredFile]:
    prefix = folder + "/"
    return {
        path.removeprefix(prefix): file
        for path, file in commit.files.items()
        if path.startswith(prefix)
    }


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    history = repo.history(commit.id)
    for newer, older in pairwise(history):
        if newer.files.get(path) != older.files.get(path) or _below(newer, path) != _below(
            older, path
        ):
            return newer
    return history[-1]


@route("POST", "/api/models/{repo}/paths-info/{revision}", name="paths_info")
def paths_info(hub: Hub, request: Request) -> Response:
    """The named files and folders; names of nothing are left out."""
    repo = hub.readable(request)
    commit = repo.commit(request.params["revision"])
    form = request.form()
    known = {*commit.files, *folders_of(commit.files)}
    paths = [path.strip("/") for path in form.get("paths", [])]
    if len(paths) > 1000:
        raise HubError(413, "too many parameters")
    expand = form.get("expand", ["false"])[0].lower() == "true"
    return answer_json([entry(repo, commit, path, expand) for path in paths if path in known])


@route("GET", "/api/models/{repo}/commits/{revision}", name="commits")
def commits(hub: Hub, request: Request) -> Response:
    """The history of a revision, newest first, in pages."""
    repo = hub.readable(request)
    history = repo.history(request.params["revision"])
    page, headers = paged(hub, request, history, COMMITS_PAGE)
    headers["X-Total-Count"] = str(len(history))
    return answer_json([_told(commit) for commit in page], headers=headers)


def _told(commit: Commit) -> dict[str, Any]:
    return {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": commit.author, "avatar": f"/avatars/{commit.author}.svg"}],
        "date": iso(commit.date),
    }


@route("GET HEAD", "/{repo}/resolve/{revision}/{rest}", name="resolve")
def resolve(hub: Hub, request: Request) -> Response:
    """Where the bytes of a file are.

    A regular file: a 307 to the same host, relative, as the Hub does it. One in LFS or xet: a
    302 to another host that needs no token, with size and hash in `X-Linked-*`.
    """
    repo = hub.readable(request)
    hub.admit(request, repo)
    commit = repo.commit(request.params["revision"])
    path = request.params["rest"]
    file = commit.files.get(path)
    headers = {"X-Repo-Commit": commit.id}
    if file is None:
        raise HubError(404, code="EntryNotFound", headers=headers)
    headers |= {"Accept-Ranges": "bytes", "X-Linked-Size": str(file.size)}
    if file.sha256 is None:
        query = urlencode({"etag": f'"{file.oid}"'})
        where = f"/api/resolve-cache/models/{repo.id}/{commit.id}/{quote(path)}?{query}"
        return Response(307, headers={**headers, "ETag": f'"{file.oid}"', "Location": where})
    name = path.rpartition("/")[2]
    query = urlencode({"filename": name, "signature": "test"})
    headers |= {
        "X-Linked-ETag": f'"{file.sha256}"',
        "ETag": f'"{file.sha256}"',
        "Location": f"{hub.cdn}/objects/{file.sha256}?{query}",
    }
    if file.xet_hash:
        auth = f"{hub.endpoint}/api/models/{repo.id}/xet-read-token/{commit.id}"
        headers |= {"X-Xet-Hash": file.xet_hash, "Link": f'<{auth}>; rel="xet-auth"'}
    return Response(302, headers=headers)


@route("GET HEAD", "/api/resolve-cache/models/{repo}/{revision}/{rest}", name="file")
def regular_file(hub: Hub, request: Request) -> Response:
    """The bytes of a regular file."""
    repo = hub.readable(request)
    hub.admit(request, repo)
    commit = repo.commit(request.params["revision"])
    path = request.params["rest"]
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, code="EntryNotFound", headers={"X-Repo-Commit": commit.id})
    name = quote(path.rpartition("/")[2])
    headers = {
        "X-Repo-Commit": commit.id,
        "ETag": f'"{file.oid}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{name}; filename=\"{name}\";",
    }
    return answer_bytes(request, hub.store.read(file), headers)


@route("GET HEAD", "/objects/{sha256}", name="cdn")
def cdn_object(hub: Hub, request: Request) -> Response:
    """The bytes of a file in LFS or xet, for whoever has the signed address."""
    data = hub.store.objects.get(request.params["sha256"])
    if data is None:
        raise HubError(404, "NoSuchKey")
    return answer_bytes(request, data, {"ETag": f'"{request.params["sha256"]}"'})
