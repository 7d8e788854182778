"""Routes that change files: how to upload, the LFS protocol, the commit itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from .card import check
from .hub import Hub
from .routing import route
from .store import Commit, Repo, StoredFile
from .wire import HubError, Request, Response, answer_json

STALE = "A commit has happened since. Please refresh and try again."


@route("POST", "/api/models/{repo}/preupload/{revision}", name="preupload")
def preupload(hub: Hub, request: Request) -> Response:
    """Tell how each file is to be uploaded, and what is there under its name."""
    repo = hub.writable(request)
    files = repo.commit(request.params["revision"]).files
    modes = []
    for entry in request.json()["files"]:
        there = files.get(entry["path"])
        mode = hub.upload_mode(entry["path"], entry["size"])
        ignored = _is_ignored(hub, files.get(".gitignore"), entry["path"])
        modes.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": ignored})
        if there is not None:
            modes[-1]["oid"] = there.key
    return answer_json({"files": modes})


def _is_ignored(hub: Hub, gitignore: StoredFile | None, path: str) -> bool:
    """Whether a line of the repo's `.gitignore` leaves a file at the top out."""
    lines = hub.store.objects[gitignore.key].decode().split() if gitignore else []
    return any(fnmatch(path, line) for line in lines)


@route("POST", "/{repo}.git/info/lfs/objects/batch", name="lfs_batch")
def lfs_batch(hub: Hub, request: Request) -> Response:
    """Addresses to upload to, on another host, for the objects not there yet."""
    repo = hub.writable(request)
    body = request.json()
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise HubError(422, "This hub takes LFS uploads by SHA-256 only")
    objects = []
    for wanted in body["objects"]:
        answer: dict[str, Any] = {**wanted, "authenticated": True}
        if wanted["oid"] not in hub.store.objects:
            verify = f"{hub.endpoint}/{repo.id}.git/info/lfs/objects/verify"
            answer["actions"] = {
                "upload": {"href": f"{hub.cdn}/upload/{wanted['oid']}?signature=test"},
                "verify": {"href": verify, "header": {}},
            }
        objects.append(answer)
    headers = {"Content-Type": "application/vnd.git-lfs+json"}
    return answer_json({"transfer": "basic", "objects": objects}, headers=headers)


@route("PUT", "/upload/{oid}", name="lfs_upload")
def lfs_upload(hub: Hub, request: Request) -> Response:
    """Take the bytes of an LFS object; they must be what was announced."""
    if hashlib.sha256(request.body).hexdigest() != request.params["oid"]:
        raise HubError(400, "BadDigest")
    hub.keep_lfs(request.body)
    return Response(200, headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


@route("POST", "/{repo}.git/info/lfs/objects/verify", name="lfs_verify")
def lfs_verify(hub: Hub, request: Request) -> Response:
    """Whether an uploaded object is there, in full."""
    hub.writable(request)
    body = request.json()
    if len(hub.store.objects.get(body["oid"], b"")) != body["size"]:
        raise HubError(404, "Object does not exist")
    return answer_json({})


@route("POST", "/api/models/{repo}/commit/{revision}", name="commit")
def commit(hub: Hub, request: Request) -> Response:
    """One commit, as lines of JSON: a header, then what to add and to delete.

    Raises:
        HubError: 412 when `parentCommit` is not the head of the branch any more.
    """
    repo = hub.writable(request)
    user = hub.signed_in(request)
    branch = request.params["revision"]
    if request.first("create_pr") == "1" or branch.startswith("refs/pr/"):
        raise HubError(403, "Pull requests are disabled on this hub")
    if branch not in repo.branches:
        raise HubError(404, f"Invalid rev id: {branch}", code="RevisionNotFound")
    head, *operations = _lines(request.body)
    parent = head["value"].get("parentCommit")
    if parent is not None and parent != repo.branches[branch]:
        raise HubError(412, STALE)
    files = _apply(hub, repo.commit(branch), operations)
    made = hub.store.commit(
        repo,
        files,
        branch=branch,
        title=head["value"]["summary"],
        message=head["value"].get("description", ""),
        author=user.name,
    )
    return answer_json(_receipt(hub, repo, made))


def _receipt(hub: Hub, repo: Repo, made: Commit) -> dict[str, Any]:
    return {
        "success": True,
        "commitOid": made.id,
        "commitUrl": f"{hub.endpoint}/{repo.id}/commit/{made.id}",
        "hookOutput": "",
    }


def _lines(body: bytes) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        if lines[0]["key"] == "header" and lines[0]["value"]["summary"]:
            return lines
    except (ValueError, LookupError, TypeError):
        pass
    raise HubError(400, "The first line must be a header with a summary")


def _apply(hub: Hub, parent: Commit, operations: list[dict[str, Any]]) -> Mapping[str, StoredFile]:
    files = dict(parent.files)
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = _checked(value["path"])
        if key == "file":
            data = base64.b64decode(value["content"])
            if path == "README.md":
                _check_card(data)
            files[path] = hub.store.keep(data)
        elif key == "lfsFile":
            files[path] = _uploaded(hub, value["oid"])
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            files = {name: file for name, file in files.items() if not _inside(name, path)}
        else:
            message = "A file with this name doesn't exist" if key == "deletedFile" else key
            raise HubError(404, message, code="EntryNotFound")
    return files


def _uploaded(hub: Hub, sha256: str) -> StoredFile:
    """The LFS object of that name, from LFS or, on xet, from where hf_xet has put it."""
    if hub.uploads == "xet" and sha256 not in hub.store.objects:
        found = hub.xet.fetch(sha256)
        if found is not None:
            return hub.keep_lfs(found)
    return hub.store.lfs_file(sha256)


def _inside(name: str, folder: str) -> bool:
    return name.startswith(folder.rstrip("/") + "/")


def _checked(path: str) -> str:
    parts = path.rstrip("/").split("/")
    if not path or any(part in ("", ".", "..", ".git") for part in parts) or "\\" in path:
        raise HubError(400, f"Invalid path: {path}")
    return path


def _check_card(data: bytes) -> None:
    errors, _ = check(data.decode("utf-8", "replace"))
    if errors:
        raise HubError(400, "Invalid metadata in README.md", errors=errors)
