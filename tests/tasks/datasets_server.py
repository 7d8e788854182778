"""A loopback server of what `datasets` asks the Hub for: repositories, their files in memory."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


def serve(repos: Mapping[str, Mapping[str, bytes]]) -> ThreadingHTTPServer:
    """Return a server, not yet running, that knows these datasets and answers 404 for others."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            asked = re.fullmatch(r"(/api)?/datasets/([^/]+/[^/]+)(?:/(.+))?", path)
            if asked is None or asked[2] not in repos:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
                return
            files, rest = repos[asked[2]], asked[3] or ""
            if asked[1] is None and rest.startswith("resolve/"):
                self._send_file(files, rest.split("/", 2)[2])
            elif rest.startswith("tree/"):
                self._send_json(_listing(files, rest.split("/")[2:], "recursive=true" in query))
            else:
                siblings = [{"rfilename": name} for name in files]
                self._send_json({"id": asked[2], "sha": COMMIT, "siblings": siblings})

        do_HEAD = do_GET

        def _send_file(self, files: Mapping[str, bytes], name: str) -> None:
            headers = {"X-Repo-Commit": COMMIT}
            if name not in files:
                self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
                return
            etag = f'"{_entry(name, files[name])["oid"]}"'
            self._send(200, files[name], {**headers, "ETag": etag})

        def _send_json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {})

        def _send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _listing(
    files: Mapping[str, bytes], folder: Sequence[str], recursive: bool
) -> list[dict[str, object]]:
    """What lies in a folder, as the Hub lists it: folders too, and all below if it is recursive."""
    depth = len(folder)
    inside = [name for name in files if name.split("/")[:depth] == list(folder)]
    deepest = max((name.count("/") for name in inside), default=0) if recursive else depth
    folders = {
        "/".join(name.split("/")[: level + 1])
        for name in inside
        for level in range(depth, min(deepest + 1, name.count("/")))
    }
    return [
        *({"type": "directory", "path": path, "size": 0, "oid": COMMIT} for path in folders),
        *(_entry(name, files[name]) for name in inside if name.count("/") <= deepest),
    ]


def _entry(name: str, data: bytes) -> dict[str, object]:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}
