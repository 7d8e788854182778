"""The loopback hub, driven by the real `huggingface_hub` client."""

import hashlib
import io
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from tests.hub.server import HubServer
from tests.hub.server.client import CARD, REPO, WEIGHTS, api_of, push, running


def add(**files: bytes) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name.replace("__", "."), data) for name, data in files.items()]


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_whoami_names_the_user_of_the_token(server: HubServer) -> None:
    assert api_of(server).whoami()["name"] == "me"
    other = server.add_user("you", organizations=("lab",))
    assert [org["name"] for org in api_of(server, other).whoami()["orgs"]] == ["lab"]


def test_an_unknown_token_is_refused_everywhere(server: HubServer) -> None:
    server.seed("org/open", {"README.md": CARD})
    api = api_of(server, "hf_unknown")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami()
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api.model_info("org/open")


def test_create_exists_delete(server: HubServer) -> None:
    api = api_of(server)
    assert not api.repo_exists(REPO)
    url = api.create_repo("mood")
    assert (url, url.repo_id) == (f"{server.endpoint}/{REPO}", REPO)
    assert api.repo_exists(REPO)
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(REPO)
    assert refused.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)
    api.delete_repo(REPO, missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(REPO)


def test_a_repo_that_has_moved_is_found_by_its_old_name(
    any_server: HubServer, tmp_path: Path
) -> None:
    api = api_of(any_server)
    push(api)
    api.move_repo(REPO, "me/temper")
    assert api.model_info(REPO).id == "me/temper"
    path = api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"weights"
    assert [model.id for model in api.list_models()] == ["me/temper"]


def test_a_new_repo_holds_gitattributes_alone(server: HubServer) -> None:
    api = api_of(server)
    api.create_repo(REPO)
    assert api.list_repo_files(REPO) == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["initial commit"]


def test_only_owners_with_a_write_token_may_write(server: HubServer) -> None:
    push(api_of(server))
    for token in (server.add_user("you"), server.add_user("me", role="read")):
        with pytest.raises(HfHubHTTPError) as refused:
            api_of(server, token).create_commit(REPO, add(a=b"a"), commit_message="Mine")
        assert refused.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as refused:
        api_of(server, False).create_commit(REPO, add(a=b"a"), commit_message="Mine")
    assert refused.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError) as refused:
        api_of(server).create_repo("org/mood")
    assert refused.value.response.status_code == 403


def test_a_private_repo_is_hidden_from_others(server: HubServer) -> None:
    api = api_of(server)
    api.create_repo(REPO, private=True)
    assert api.model_info(REPO).private
    assert [model.id for model in api.list_models()] == [REPO]
    for token, status in ((server.add_user("you"), 404), (False, 401)):
        other = api_of(server, token)
        with pytest.raises(RepositoryNotFoundError) as hidden:
            other.model_info(REPO)
        assert hidden.value.response.status_code == status
        assert list(other.list_models()) == []
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(REPO, ".gitattributes")
    api.update_repo_settings(REPO, private=False)
    assert not api_of(server, False).model_info(REPO).private


def test_a_gated_repo_shows_its_files_but_gives_none(server: HubServer, tmp_path: Path) -> None:
    push(api_of(server))
    api_of(server).update_repo_settings(REPO, gated="manual")
    token = server.add_user("you")
    you = api_of(server, token)
    assert you.model_info(REPO).gated == "manual"
    with pytest.raises(GatedRepoError) as refused:
        you.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)
    assert refused.value.response.status_code == 403
    with pytest.raises(GatedRepoError):
        api_of(server, False).auth_check(REPO)
    server.store.repos[REPO].admitted.add("you")
    assert Path(you.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)).read_bytes() == b"weights"


def test_push_and_pull_round_trip(any_server: HubServer, tmp_path: Path) -> None:
    api = api_of(any_server)
    data = os.urandom(46_000)
    commit = push(api, data)
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == commit
    listed = {file.path: file for file in api.list_repo_tree(REPO, revision=commit)}
    assert listed["README.md"].blob_id == git_blob(CARD)
    weights = listed[WEIGHTS]
    assert weights.size == len(data)
    if any_server.uploads == "regular":
        assert (weights.lfs, weights.blob_id) == (None, git_blob(data))
    else:
        assert weights.lfs is not None
        sha256 = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 46000\n"
        assert weights.lfs.sha256 == sha256
        assert weights.blob_id == git_blob(pointer.encode())
    assert (weights.xet_hash is not None) == (any_server.uploads == "xet")
    assert next(s for s in info.siblings or [] if s.rfilename == WEIGHTS).lfs == weights.lfs
    for path in (
        api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path / "cache"),
        Path(api.snapshot_download(REPO, local_dir=tmp_path / "folder"), WEIGHTS),
    ):
        assert Path(path).read_bytes() == data
    assert api.verify_repo_checksums(REPO, local_dir=tmp_path / "folder").mismatches == []
    assert any_server.leaks() == []


def test_bytes_go_by_the_protocol_of_the_mode(any_server: HubServer) -> None:
    push(api_of(any_server))
    went = {request.route for request in any_server.requests}
    assert ("lfs_upload" in went) == (any_server.uploads == "lfs")
    assert ("xet_token" in went) == (any_server.uploads == "xet")


def test_a_file_object_goes_by_lfs_even_where_there_is_xet(tmp_path: Path) -> None:
    data = os.urandom(5_000)
    with running("xet") as server:
        api = api_of(server)
        api.create_repo(REPO)
        operation = CommitOperationAdd(WEIGHTS, io.BytesIO(data))
        api.create_commit(REPO, [operation], commit_message="Add")
        assert [request.host for request in server.sent_to("lfs_upload")] == ["cdn"]
        assert api.get_paths_info(REPO, WEIGHTS)[0].xet_hash
        assert Path(api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)).read_bytes() == data
        assert len(server.sent_to("xet_token")) == 1


def test_xet_files_that_share_content(tmp_path: Path) -> None:
    first = os.urandom(400_000)
    second = first[:300_000] + os.urandom(200_000)
    with running("xet") as server:
        api = api_of(server)
        api.create_repo(REPO)
        for files in ({"a__bin": first, "b__bin": second}, {"c__bin": second[::-1]}):
            api.create_commit(REPO, add(**files), commit_message="Add")
        folder = Path(api.snapshot_download(REPO, local_dir=tmp_path))
    assert (folder / "a.bin").read_bytes() == first
    assert (folder / "b.bin").read_bytes() == second
    assert (folder / "c.bin").read_bytes() == second[::-1]


def test_bytes_can_be_read_without_a_client(any_server: HubServer) -> None:
    data = os.urandom(3_000)
    push(api_of(any_server), data)
    url = f"{any_server.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    assert urllib.request.urlopen(url, timeout=5).read() == data
    answer = get_session().get(url, headers={"Range": "bytes=1000-1999"})
    assert (answer.status_code, answer.content) == (206, data[1000:2000])
    assert answer.headers["Content-Range"] == "bytes 1000-1999/3000"
    assert get_session().get(url, headers={"Range": "bytes=-10"}).content == data[-10:]
    assert get_session().get(url, headers={"Range": "bytes=3000-"}).status_code == 416
    again = get_session().get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_history_tags_and_branches(any_server: HubServer, tmp_path: Path) -> None:
    api = api_of(any_server)
    first = push(api, b"one")
    api.create_tag(REPO, tag="v1", tag_message="The first")
    second = push(api, b"two")
    api.create_tag(REPO, tag="v1-again", revision=first[:7])
    api.create_branch(REPO, branch="try/this", revision="v1")
    third = push(api, b"three", revision="try/this")
    refs = api.list_repo_refs(REPO)
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first, "v1-again": first}
    assert {b.name: b.target_commit for b in refs.branches} == {"main": second, "try/this": third}
    main, branch = (api.list_repo_commits(REPO, revision=r) for r in ("main", "try/this"))
    assert [commit.commit_id for commit in main[:2]] == [second, first]
    assert [commit.commit_id for commit in branch[:2]] == [third, first]
    assert (main[0].authors, main[0].title) == (["me"], "Add")
    assert main[0].created_at > main[1].created_at
    for revision, data in {
        "v1": b"one",
        "main": b"two",
        "try/this": b"three",
        third: b"three",
    }.items():
        path = api.hf_hub_download(REPO, WEIGHTS, revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == data


def test_refs_that_cannot_be(server: HubServer) -> None:
    api = api_of(server)
    push(api)
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="next")
    api.create_tag(REPO, tag="v1", exist_ok=True)
    api.create_branch(REPO, branch="next", exist_ok=True)
    for status, attempt in {
        409: lambda: api.create_tag(REPO, tag="v1"),
        400: lambda: api.create_tag(REPO, tag="../v1"),
        403: lambda: api.delete_branch(REPO, branch="main"),
    }.items():
        with pytest.raises(HfHubHTTPError) as refused:
            attempt()
        assert refused.value.response.status_code == status
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(REPO, tag="v2", revision="nowhere")
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="next")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.delete_branch(REPO, branch="next")


def test_delete_copy_and_folders(server: HubServer) -> None:
    api = api_of(server)
    api.create_repo(REPO)
    files = {"a/one.txt": b"1", "a/b/two.txt": b"2", "c.txt": b"3"}
    api.create_commit(
        REPO,
        [CommitOperationAdd(path, data) for path, data in files.items()],
        commit_message="Add",
    )
    top = {entry.path for entry in api.list_repo_tree(REPO)}
    assert top == {".gitattributes", "a", "c.txt"}
    assert {entry.path for entry in api.list_repo_tree(REPO, "a")} == {"a/one.txt", "a/b"}
    assert {"a/b", "a/b/two.txt"} < {e.path for e in api.list_repo_tree(REPO, recursive=True)}
    paths = api.get_paths_info(REPO, ["a/b", "c.txt", "nothing"], expand=True)
    assert [path.path for path in paths] == ["a/b", "c.txt"]
    assert paths[1].last_commit.title == "Add"
    changes = [
        CommitOperationDelete("a/", is_folder=True),
        CommitOperationCopy("c.txt", "d.txt"),
        CommitOperationDelete("c.txt"),
    ]
    api.create_commit(REPO, changes, commit_message="Change")
    assert set(api.list_repo_files(REPO)) == {".gitattributes", "d.txt"}
    with pytest.raises(RemoteEntryNotFoundError, match="doesn't exist"):
        api.delete_file("c.txt", REPO)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "a"))


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_ids_are_those_git_would_give(server: HubServer, tmp_path: Path) -> None:
    api = api_of(server)
    api.create_repo(REPO)
    nested = {"a.txt": b"1", "a/b/c.txt": b"2", "a0": b"3"}
    operations = [CommitOperationAdd(path, data) for path, data in nested.items()]
    api.create_commit(REPO, operations, commit_message="Add", commit_description="Some\nmore")
    repo = server.store.repos[REPO]
    git(tmp_path, "init", "-q")
    for commit in reversed(repo.history("main")):
        for path, file in commit.files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(server.store.read(file))
        git(tmp_path, "add", ".")
        message = f"{commit.title}\n\n{commit.message}".strip()
        date = f"{int(commit.date.timestamp())} +0000"
        git(tmp_path, "commit", "-q", "-m", message, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
    assert git(tmp_path, "rev-parse", "HEAD") == repo.head.id


def git(folder: Path, *arguments: str, **environment: str) -> str:
    who = {"NAME": "me", "EMAIL": "me@users.noreply.huggingface.co"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_{field}": value for field, value in who.items()}
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_storage_takes_only_what_was_announced() -> None:
    with running("lfs") as server:
        announced = hashlib.sha256(b"right").hexdigest()
        url = f"{server.cdn}/upload/{announced}"
        assert get_session().put(url, content=b"wrong").status_code == 400
        verify = f"{server.endpoint}/{REPO}.git/info/lfs/objects/verify"
        push(api_of(server))
        header = {"Authorization": f"Bearer {server.token}"}
        claim = {"oid": announced, "size": 5}
        assert get_session().post(verify, json=claim, headers=header).status_code == 404
        assert get_session().put(url, content=b"right").status_code == 200
        assert get_session().post(verify, json=claim, headers=header).status_code == 200


def test_a_stale_parent_is_refused(any_server: HubServer) -> None:
    api = api_of(any_server)
    first = push(api, b"one")
    second = push(api, b"two", parent_commit=first)
    with pytest.raises(HfHubHTTPError) as refused:
        push(api, b"three", parent_commit=first)
    assert refused.value.response.status_code == 412
    assert api.model_info(REPO).sha == second


def test_unchanged_files_make_no_commit(any_server: HubServer) -> None:
    api = api_of(any_server)
    assert push(api) == push(api)
    assert len(any_server.sent_to("commit")) == 1


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("license: my-own", '"license" must be one of'),
        ("base_model: /home/me/base", '"base_model" with value "/home/me/base" is not valid'),
        ("model-index: here", '"model-index" must be an array'),
        ("model-index: [{name: a, results: [{metrics: []}]}]", "task.type"),
        ("tags: [[a]]", '"tags" must be'),
        ("- a list", "must be an object"),
        ("a: b: c", "Invalid YAML"),
    ],
)
def test_a_card_with_errors_is_refused(server: HubServer, yaml: str, message: str) -> None:
    api = api_of(server)
    api.create_repo(REPO)
    with pytest.raises(ValueError, match="Invalid metadata") as refused:
        api.upload_file(
            path_or_fileobj=f"---\n{yaml}\n---\n".encode(), path_in_repo="README.md", repo_id=REPO
        )
    assert message in str(refused.value)
    assert server.sent_to("commit") == []


def test_a_card_without_front_matter_warns(server: HubServer) -> None:
    api = api_of(server)
    api.create_repo(REPO)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# Hi", path_in_repo="README.md", repo_id=REPO)


def test_what_is_not_there(server: HubServer, tmp_path: Path) -> None:
    api = api_of(server)
    push(api)
    for error, attempt in {
        RepositoryNotFoundError: lambda: api.model_info("me/nothing"),
        RevisionNotFoundError: lambda: api.model_info(REPO, revision="nowhere"),
        RemoteEntryNotFoundError: lambda: api.hf_hub_download(REPO, "no.txt", cache_dir=tmp_path),
    }.items():
        with pytest.raises(error):
            attempt()
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(REPO, add(a=b"a"), commit_message="Add", revision="nowhere")
