"""The table of routes: which function answers which method and path."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .wire import Request, Response, unquote_all

if TYPE_CHECKING:
    from .hub import Hub

Answer = Callable[["Hub", Request], Response]
PARTS = {
    "repo": r"[^/]+(?:/[^/]+)?",
    "rest": r".*",
}
ROUTES: list[tuple[str, str, re.Pattern[str], Answer]] = []


def route(methods: str, path: str, *, name: str) -> Callable[[Answer], Answer]:
    """Let a function answer `methods` ("GET HEAD") on a path with `{parts}` in it.

    `{repo}` may hold a slash, `{rest}` any number of them, any other part none.
    """

    def part(match: re.Match[str]) -> str:
        return f"(?P<{match.group(1)}>{PARTS.get(match.group(1), '[^/]+')})"

    pattern = re.compile(
        re.sub(r"\{(\w+)\}", part, re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))
    )

    def register(answer: Answer) -> Answer:
        ROUTES.extend((method, name, pattern, answer) for method in methods.split())
        return answer

    return register


def find(request: Request) -> Answer | None:
    """The function that answers a request; notes the route's name and parts in the request."""
    for method, name, pattern, answer in ROUTES:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            request.route = name
            request.params = unquote_all(match.groupdict())
            return answer
    return None
