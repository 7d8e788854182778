"""Ways to misbehave. A fault waits for requests to its routes, acts so many times, then is gone.

    server.faults.lose_response("commit")        # the commit is applied, the answer never comes
    server.faults.corrupt("file", path="adapter_model.safetensors", times=None)   # for ever

`times=None` is for ever. `path` limits a fault to requests whose path contains it. Route names
are the `name=` of the `@route`s: whoami, create_repo, delete_repo, move_repo, settings,
validate_yaml, list_models, model_info, tree, paths_info, refs, commits, tag, branch, preupload,
commit, lfs_batch, lfs_upload, lfs_verify, xet_token, resolve, file and cdn; "*" is any. "file"
gives the bytes of regular files, "cdn" those of LFS and xet files: `BYTES` is both.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .wire import HubError, Request, Response

BYTES = ("file", "cdn")
LISTINGS = ("tree", "paths_info", "model_info")
Before = Callable[[Request], "Response | None"]
After = Callable[[Request, Response], Response]


@dataclass
class Fault:
    """One way to misbehave; `before` may answer in the Hub's stead, `after` changes its answer."""

    routes: tuple[str, ...]
    before: Before | None = None
    after: After | None = None
    times: int | None = 1
    path: str = ""
    method: str = ""

    def meets(self, request: Request) -> bool:
        """Whether the fault is meant for a request."""
        return (
            ("*" in self.routes or request.route in self.routes)
            and self.path in request.path
            and self.method in ("", request.method)
        )


class Faults:
    """The faults that wait, and one method a kind."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()
        self.over = threading.Event()  # set when the server stops: nothing hangs any longer

    def claim(self, request: Request) -> list[Fault]:
        """The faults that act on a request; each is one time less to come."""
        with self._lock:
            acting = [fault for fault in self._waiting if fault.meets(request)]
            for fault in acting:
                if fault.times is not None:
                    fault.times -= 1
            self._waiting = [fault for fault in self._waiting if fault.times != 0]
            return acting

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._waiting.clear()

    def add(
        self,
        routes: str | tuple[str, ...],
        *,
        before: Before | None = None,
        after: After | None = None,
        times: int | None = 1,
        path: str = "",
        method: str = "",
    ) -> None:
        """Any other misbehaviour: a function called before or after the Hub answers."""
        names = (routes,) if isinstance(routes, str) else routes
        with self._lock:
            self._waiting.append(Fault(names, before, after, times, path, method))

    def status(
        self,
        routes: str | tuple[str, ...],
        status: int,
        *,
        message: str = "",
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **when: Any,
    ) -> None:
        """Answer with an error status and do nothing."""
        error = HubError(status, message, code=code, headers=headers)
        self.add(routes, before=lambda _: error.response(), **when)

    def stale(self, **when: Any) -> None:
        """Refuse a commit with 412, as if somebody had committed just before."""
        message = "A commit has happened since. Please refresh and try again."
        self.status("commit", 412, message=message, **when)

    def rate_limit(
        self, routes: str | tuple[str, ...] = "*", *, seconds: int = 1, **when: Any
    ) -> None:
        """Answer 429 with `Retry-After` and the Hub's RateLimit headers."""
        headers = {"Retry-After": str(seconds), "RateLimit": f'"api";r=0;t={seconds}'}
        self.status(routes, 429, message="Too many requests", headers=headers, **when)

    def unavailable(self, routes: str | tuple[str, ...] = "*", **when: Any) -> None:
        """Answer 503."""
        self.status(routes, 503, message="Service temporarily unavailable", **when)

    def lose_response(self, routes: str | tuple[str, ...] = "commit", **when: Any) -> None:
        """Do what was asked, then cut the connection without an answer."""
        self.add(routes, after=lambda _, answer: _with(answer, lost=True), **when)

    def drop(self, routes: str | tuple[str, ...] = "*", **when: Any) -> None:
        """Cut the connection without an answer and without doing anything."""
        self.add(routes, before=lambda _: Response(lost=True), **when)

    def hang(
        self, routes: str | tuple[str, ...] = "*", *, seconds: float = 60.0, **when: Any
    ) -> None:
        """Say nothing for some seconds, then answer."""

        def wait(_: Request) -> None:
            self.over.wait(seconds)

        self.add(routes, before=wait, **when)

    def slow(
        self,
        routes: str | tuple[str, ...] = BYTES,
        *,
        pause: float = 0.1,
        piece: int = 1024,
        **when: Any,
    ) -> None:
        """Send the body in pieces, with a pause in seconds before each."""
        self.add(routes, after=lambda _, a: _with(a, pause=pause, piece=piece), **when)

    def truncate(
        self, routes: str | tuple[str, ...] = BYTES, *, keep: int = 10, **when: Any
    ) -> None:
        """Promise the whole body, send `keep` bytes of it, cut the connection."""
        self.add(routes, after=lambda _, answer: _with(answer, keep=keep), **when)

    def shorten(
        self, routes: str | tuple[str, ...] = BYTES, *, keep: int = 10, **when: Any
    ) -> None:
        """Send `keep` bytes of the body and call that the whole."""
        self.replace(routes, lambda body: body[:keep], **when)

    def promise(
        self, routes: str | tuple[str, ...] = BYTES, *, size: int = 1 << 50, **when: Any
    ) -> None:
        """Declare a body of `size` bytes, send the right one, cut the connection."""
        self.header(routes, "Content-Length", str(size), **when)

    def corrupt(self, routes: str | tuple[str, ...] = BYTES, **when: Any) -> None:
        """Flip the last byte of the body."""
        self.replace(routes, lambda body: body[:-1] + bytes([body[-1] ^ 0xFF]), **when)

    def replace(
        self,
        routes: str | tuple[str, ...],
        body: bytes | Callable[[bytes], bytes],
        **when: Any,
    ) -> None:
        """Send another body, as it is or as made from the right one."""

        def swap(_: Request, answer: Response) -> Response:
            return _with(answer, body=body(answer.body) if callable(body) else body)

        self.add(routes, after=swap, **when)

    def endless(
        self, routes: str | tuple[str, ...] = BYTES, *, size: int = 1 << 28, **when: Any
    ) -> None:
        """Send `size` zero bytes without telling how many there will be."""
        self.add(routes, after=lambda _, a: _with(a, body=bytes(size), sized=False), **when)

    def inflate(
        self, routes: str | tuple[str, ...] = BYTES, *, size: int = 1 << 26, **when: Any
    ) -> None:
        """Send a gzip body that is small on the wire and `size` zero bytes when unpacked."""
        packed = gzip.compress(bytes(size), 9)

        def swap(_: Request, answer: Response) -> Response:
            answer.headers["Content-Encoding"] = "gzip"
            return _with(answer, body=packed)

        self.add(routes, after=swap, **when)

    def next_page(self, routes: str | tuple[str, ...], url: str, **when: Any) -> None:
        """Name another address as the next page of a listing."""
        self.header(routes, "Link", f'<{url}>; rel="next"', **when)

    def redirect(
        self,
        routes: str | tuple[str, ...],
        to: str,
        *,
        status: int = 302,
        append_path: bool = True,
        **when: Any,
    ) -> None:
        """Send the client to another address, such as `server.elsewhere`, or round in a circle."""

        def answer(request: Request) -> Response:
            return Response(status, headers={"Location": to + request.path * append_path})

        self.add(routes, before=answer, **when)

    def header(
        self, routes: str | tuple[str, ...], name: str, value: str | None, **when: Any
    ) -> None:
        """Answer with another value of a header (None leaves it out), such as a false commit."""

        def change(_: Request, answer: Response) -> Response:
            answer.headers.pop(name, None)
            if value is not None:
                answer.headers[name] = value
            return answer

        self.add(routes, after=change, **when)

    def lie(self, file: str, *, times: int | None = None, **fields: Any) -> None:
        """List `file` with other `path`, `size`, `oid`, `sha256` or `xet_hash`.

        In the tree, in paths-info and in model info with blobs; the bytes stay right. A size may
        be huge or negative, a path `../evil`, a hash of nothing: whatever a hostile hub would say.
        """
        unknown = set(fields) - {"path", "size", "oid", "sha256", "xet_hash"}
        if unknown:
            raise TypeError(f"no such thing to lie about: {sorted(unknown)}")

        def change(_: Request, answer: Response) -> Response:
            if answer.status != 200:
                return answer
            data = answer.data()
            for entry in data["siblings"] if isinstance(data, dict) else data:
                if file in (entry.get("path"), entry.get("rfilename")):
                    _rewrite(entry, fields)
            return _with(answer, body=json.dumps(data).encode())

        self.add(LISTINGS, after=change, times=times)

    def meanwhile(self, routes: str | tuple[str, ...], act: Callable[[], Any], **when: Any) -> None:
        """Once the answer stands, do something behind the client's back, such as move a ref."""

        def change(_: Request, answer: Response) -> Response:
            act()
            return answer

        self.add(routes, after=change, **when)


def _with(answer: Response, **changes: Any) -> Response:
    for name, value in changes.items():
        setattr(answer, name, value)
    return answer


def _rewrite(entry: dict[str, Any], fields: dict[str, Any]) -> None:
    lfs = entry.get("lfs")
    names = {
        "path": "path" if "path" in entry else "rfilename",
        "oid": "oid" if "path" in entry else "blobId",
        "size": "size",
        "xet_hash": "xetHash",
    }
    for field, value in fields.items():
        if field == "sha256":
            if lfs:
                lfs["oid" if "path" in entry else "sha256"] = value
            continue
        entry[names[field]] = value
        if field == "size" and lfs:
            lfs["size"] = value
