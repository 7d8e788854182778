"""Routes on repos as a whole: who am I, create, delete, move, settings, card checks, refs."""

from __future__ import annotations

import re
from typing import Any

from .card import check
from .hub import Hub
from .routing import route
from .store import REF_NAME, User, git_id
from .wire import HubError, Request, Response, answer_json


@route("GET", "/api/whoami-v2", name="whoami")
def whoami(hub: Hub, request: Request) -> Response:
    """The account behind the token."""
    user = hub.signed_in(request)
    return answer_json(
        {
            "type": "user",
            "id": git_id("user", user.name.encode())[:24],
            "name": user.name,
            "fullname": user.name.title(),
            "isPro": False,
            "orgs": [{"type": "org", "name": name} for name in user.organizations],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": user.role},
            },
        }
    )


def _named(request: Request, user: User) -> str:
    body = request.json()
    name = body.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"(?!.*(--|\.\.))[\w][\w.\-]{0,95}", name):
        raise HubError(400, f"Invalid repo name: {name}")
    if body.get("type") not in (None, "model"):
        raise HubError(400, "This hub has models only")
    return f"{body.get('organization') or user.name}/{name}"


@route("POST", "/api/repos/create", name="create_repo")
def create_repo(hub: Hub, request: Request) -> Response:
    """Create a repo; 409, with its address, when it is there already."""
    user = hub.signed_in(request)
    repo_id = _named(request, user)
    namespace = repo_id.partition("/")[0]
    if not user.owns(namespace) or user.role != "write":
        message = f'You don\'t have the rights to create a model under the namespace "{namespace}"'
        raise HubError(403, message)
    url = f"{hub.endpoint}/{repo_id}"
    if repo_id in hub.store.repos:
        return answer_json({"error": "You already created this model repo", "url": url}, status=409)
    body = request.json()
    private = body.get("visibility") == "private" or body.get("private") is True
    repo = hub.store.create(repo_id, private=private, author=user.name)
    return answer_json({"url": url, "name": repo_id, "id": repo.object_id})


@route("DELETE", "/api/repos/delete", name="delete_repo")
def delete_repo(hub: Hub, request: Request) -> Response:
    """Delete a repo."""
    request.params["repo"] = _named(request, hub.signed_in(request))
    del hub.store.repos[hub.writable(request).id]
    return Response(200, b"OK", {"Content-Type": "text/plain"})


@route("POST", "/api/repos/move", name="move_repo")
def move_repo(hub: Hub, request: Request) -> Response:
    """Rename a repo; the old name leads to the new one."""
    body = request.json()
    request.params["repo"] = body["fromRepo"]
    repo = hub.writable(request)
    hub.may_write(hub.signed_in(request), body["toRepo"].partition("/")[0])
    if body["toRepo"] in hub.store.repos:
        raise HubError(409, "A repo with this name exists already")
    repo.id = body["toRepo"]
    hub.store.repos[repo.id] = hub.store.repos.pop(body["fromRepo"])
    hub.moved[body["fromRepo"]] = repo.id
    return answer_json({})


@route("PUT", "/api/models/{repo}/settings", name="settings")
def settings(hub: Hub, request: Request) -> Response:
    """Change visibility or gating."""
    repo = hub.writable(request)
    body = request.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        repo.gated = body["gated"]
    return answer_json({"private": repo.private, "gated": repo.gated})


@route("POST", "/api/validate-yaml", name="validate_yaml")
def validate_yaml(hub: Hub, request: Request) -> Response:
    """Check a README's front matter."""
    errors, warnings = check(str(request.json().get("content", "")))
    body = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return answer_json(body, status=400 if errors else 200)


@route("GET", "/api/models/{repo}/auth-check", name="auth_check")
def auth_check(hub: Hub, request: Request) -> Response:
    """Whether the asker may read the files."""
    hub.admit(request, hub.readable(request))
    return answer_json({})


@route("GET", "/api/models/{repo}/auth-check/write", name="auth_check")
def auth_check_write(hub: Hub, request: Request) -> Response:
    """Whether the asker may write."""
    hub.writable(request)
    return answer_json({})


@route("GET", "/api/models/{repo}/refs", name="refs")
def refs(hub: Hub, request: Request) -> Response:
    """Branches and tags."""
    repo = hub.readable(request)
    body: dict[str, Any] = {
        "branches": _refs(repo.branches, "refs/heads/"),
        "tags": _refs(repo.tags, "refs/tags/"),
        "converts": [],
    }
    if request.first("include_prs") == "1":
        body["pullRequests"] = []
    return answer_json(body)


def _refs(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": prefix + name, "targetCommit": commit}
        for name, commit in names.items()
    ]


def _new_name(name: str, taken: dict[str, str], kind: str) -> str:
    if not REF_NAME.fullmatch(name) or name.startswith("refs/"):
        raise HubError(400, f"Invalid {kind} name: {name}")
    if name in taken:
        raise HubError(409, f"{kind.title()} already exists: {name}")
    return name


@route("POST", "/api/models/{repo}/tag/{revision}", name="tag")
def create_tag(hub: Hub, request: Request) -> Response:
    """Tag a commit."""
    repo = hub.writable(request)
    commit = repo.commit(request.params["revision"])
    repo.tags[_new_name(str(request.json().get("tag")), repo.tags, "tag")] = commit.id
    return answer_json({})


@route("DELETE", "/api/models/{repo}/tag/{tag}", name="tag")
def delete_tag(hub: Hub, request: Request) -> Response:
    """Remove a tag."""
    repo = hub.writable(request)
    if repo.tags.pop(request.params["tag"], None) is None:
        raise HubError(404, code="RevisionNotFound")
    return answer_json({})


@route("POST", "/api/models/{repo}/branch/{branch}", name="branch")
def create_branch(hub: Hub, request: Request) -> Response:
    """Start a branch, at main unless `startingPoint` says otherwise."""
    repo = hub.writable(request)
    commit = repo.commit(str(request.json().get("startingPoint", "main")))
    repo.branches[_new_name(request.params["branch"], repo.branches, "branch")] = commit.id
    return answer_json({})


@route("DELETE", "/api/models/{repo}/branch/{branch}", name="branch")
def delete_branch(hub: Hub, request: Request) -> Response:
    """Remove a branch; main stays."""
    repo = hub.writable(request)
    if request.params["branch"] == "main":
        raise HubError(403, "Cannot delete the main branch")
    if repo.branches.pop(request.params["branch"], None) is None:
        raise HubError(404, code="RevisionNotFound")
    return answer_json({})
