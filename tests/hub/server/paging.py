"""Long answers: pages of a listing, and dates as the Hub writes them."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from .hub import Hub
from .wire import Request


def iso(date: datetime) -> str:
    """A date as the Hub writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def paged(
    hub: Hub, request: Request, items: list[Any], size: int
) -> tuple[list[Any], dict[str, str]]:
    """One page of a listing, and the `Link` header to the next if there is more."""
    size = max(1, min(size, hub.page))
    cursor = request.first("cursor")
    start = int(base64.urlsafe_b64decode(cursor)) if cursor else 0
    page = items[start : start + size]
    if start + size >= len(items):
        return page, {}
    query = {
        **request.query,
        "cursor": [base64.urlsafe_b64encode(str(start + size).encode()).decode()],
    }
    url = f"{hub.endpoint}{request.path}?{urlencode(query, doseq=True)}"
    return page, {"Link": f'<{url}>; rel="next"'}
