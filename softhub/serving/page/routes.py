"""Routes of the page. Everything comes from this host, and works without JavaScript too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from softhub._version import __version__
from softhub.adapter.layout import CARD
from softhub.errors import SoftHubError
from softhub.hub.records import AdapterInfo
from softhub.serving.context import Context
from softhub.serving.errors import ApiError, as_api_error
from softhub.serving.names import BASE
from softhub.serving.page.try_out import MOST_PROMPTS, TryOut, TryOuts

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILTERS = ("text", "task", "base_model", "tag", "min_score")
_MOST_SHOWN = 50
"""Prompts and adapters of a page."""
_MOST_RENDERED = 32_000
"""Characters of a card; a longer one is shown as it is written."""
_Found = TypeVar("_Found")


class PageFiles(StaticFiles):
    """The style sheet and htmx, with the page's headers."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file."""
        response = super().file_response(*args, **options)
        response.headers.update(_HEADERS)
        return response


class Page:
    """Renders the templates.

    Args:
        context: The server.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._try_outs = TryOuts(context)
        loader = PackageLoader("softhub.serving.page")
        self._templates = Environment(loader=loader, autoescape=True, trim_blocks=True)
        # Raw HTML stays text, and images would be loaded from elsewhere.
        self._markdown = MarkdownIt("js-default", {"html": False, "linkify": False})
        self._markdown.disable(["image", "linkify"])

    async def index(self, request: Request) -> Response:
        """Return the first page, or only the list of adapters where htmx asks for it."""
        filters = {name: request.query_params.get(name, "").strip() for name in _FILTERS}
        values: dict[str, Any] = {"filters": filters, "try_out": None}
        try:
            values["adapters"] = await self._adapters(filters)
        except SoftHubError as error:
            values |= {"adapters": [], "hub_error": as_api_error(error).detail}
        partial = request.headers.get("hx-target") == "adapters"
        return self._render("adapters.html" if partial else "index.html", values)

    async def adapter(self, repo_id: str) -> Response:
        """Return the page of an adapter: its card, its description and its versions."""
        names = self._context.names
        if names.hub is None or not names.allows(repo_id):
            raise ApiError(404, f"The adapter {repo_id!r:.200} is not served.")
        hub = names.hub

        def read() -> dict[str, Any]:
            card = hub.read(repo_id).files.get(CARD, b"").decode()  # which was checked
            info, history = hub.info(repo_id), hub.log(repo_id)
            return {"info": info, "history": history, "card": self._rendered(card)}

        values = await _in_thread(read)
        return self._render("adapter.html", values)

    async def start(self, request: Request) -> Response:
        """Start a try-out; htmx follows it, and without JavaScript it is waited for."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise ApiError(403, "The form was sent from another site.")
        form = parse_qs((await request.body()).decode("utf-8", errors="replace"))
        names = list(dict.fromkeys(form.get("model", [])))
        scripted = request.headers.get("hx-request") == "true"
        try:
            try_out = await self._try_outs.start(form.get("text", [""])[0], names)
        except (SoftHubError, ApiError) as error:
            try_out = TryOut("", [], error=as_api_error(error).detail)
        else:
            if not scripted:
                await self._try_outs.finish(try_out)
        if scripted:
            return self._render("try_out.html", {"try_out": try_out})
        values = {"try_out": try_out, "filters": dict.fromkeys(_FILTERS, ""), "chosen": names}
        return self._render("index.html", {**values, "adapters": await self._adapters({})})

    async def follow(self, id: str, seen: int) -> Response:
        """Return a try-out as soon as it has changed since the version that the page shows."""
        try_out = self._try_outs.find(id)
        await try_out.changed_since(seen)
        return self._render("try_out.html", {"try_out": try_out})

    async def _adapters(self, filters: Mapping[str, str]) -> list[AdapterInfo]:
        """Return the adapters that a request may name."""
        names = self._context.names
        if names.hub is None:
            return []
        chosen: dict[str, Any] = {name: value for name, value in filters.items() if value}
        if "min_score" in chosen:
            try:
                chosen["min_score"] = float(chosen["min_score"])
            except ValueError:
                raise ApiError(400, "The minimum score is not a number.") from None
        hub = names.hub
        found = await _in_thread(lambda: hub.search(limit=None, **chosen))
        return [info for info in found if names.allows(info.repo_id)][:_MOST_SHOWN]

    def _rendered(self, card: str) -> Markup:
        """Return a card as HTML; the time for markdown may grow with the square of its length."""
        body = _without_front_matter(card)
        if len(body) > _MOST_RENDERED:
            return Markup("<pre>{}</pre>").format(body)
        return Markup(self._markdown.render(body))

    def _render(self, template: str, values: Mapping[str, Any]) -> Response:
        engine = self._context.engine
        models = [(BASE, "the bare base model")]
        shown = engine.prompts[:_MOST_SHOWN]
        models += [(name, _kind(engine.find(name, name).task)) for name in shown]
        common = {
            "base": engine.base_name,
            "models": models,
            "has_hub": self._context.names.hub is not None,
            "most": MOST_PROMPTS,
            "version": __version__,
            "chosen": [],
        }
        text = self._templates.get_template(template).render({**common, **values})
        return HTMLResponse(text, headers=_HEADERS)


def page_routes(context: Context) -> APIRouter:
    """Return the routes of the page."""
    router, page = APIRouter(), Page(context)
    router.add_api_route("/", page.index, methods=["GET"])
    router.add_api_route("/try", page.start, methods=["POST"])

    @router.get("/try/{id}")
    async def follow(id: str, seen: int = -1) -> Response:
        return await page.follow(id, seen)

    @router.get("/adapters/{namespace}/{name}")
    async def adapter(namespace: str, name: str) -> Response:
        return await page.adapter(f"{namespace}/{name}")

    return router


async def _in_thread(work: Callable[[], _Found]) -> _Found:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _kind(task: Any) -> str:
    return f"{task.name} ({task.kind})" if task else "no task"


def _without_front_matter(card: str) -> str:
    if not card.startswith("---\n"):
        return card
    end = card.find("\n---\n", 3)
    return card if end < 0 else card[end + 5 :]
