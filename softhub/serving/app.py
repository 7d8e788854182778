"""The HTTP application: routes around an engine, with keys, limits, metrics and logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from softhub.errors import SoftHubError
from softhub.hub import Hub
from softhub.serving.admin_routes import admin_routes, model_routes
from softhub.serving.context import Context
from softhub.serving.errors import as_api_error
from softhub.serving.generation_routes import generation_routes
from softhub.serving.keys import Keys
from softhub.serving.limits import BodyLimit, Limits
from softhub.serving.metrics import ServerMetrics
from softhub.serving.names import ServedNames
from softhub.serving.page.routes import PageFiles, page_routes
from softhub.serving.protocol import Engine
from softhub.serving.request_log import RequestLog
from softhub.serving.scoring_routes import scoring_routes


def create_app(
    engine: Engine,
    *,
    hub: Hub | None = None,
    allow: Sequence[str] = (),
    keys: Keys | None = None,
    admin_keys: Keys | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        engine: Answers the requests; it is closed when the application shuts down.
        hub: Hub whose adapters may be requested by name.
        allow: Patterns of these names, such as `me/*`.
        keys: Keys of clients; without any, everybody is one.
        admin_keys: Keys for loading and unloading; without any, there are no such routes.
        limits: What a request may ask for.
    """
    keys, admin_keys, limits = keys or Keys(), admin_keys or Keys(), limits or Limits()
    names = ServedNames(engine, hub=hub, allow=allow)
    context = Context(engine, names, limits, ServerMetrics(engine))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, engine.close)

    # FastAPI's own pages load scripts from elsewhere: off.
    app = FastAPI(title="softhub", lifespan=lifespan, openapi_url=None)
    for router in (generation_routes, scoring_routes, model_routes, page_routes):
        app.include_router(router(context))
    if admin_keys:
        app.include_router(admin_routes(context, admin_keys))
    app.mount("/static", PageFiles(packages=[("softhub.serving.page", "static")]))
    for kind in (HTTPException, RequestValidationError, SoftHubError, TimeoutError):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    paths = frozenset(path for path in (getattr(r, "path_format", "") for r in app.routes) if path)
    app.add_middleware(GZipMiddleware)  # leaves streams of events as they are
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    app.add_middleware(
        RequestLog,
        keys=keys.joined(admin_keys) if keys else keys,
        metrics=context.metrics,
        routes=paths,
    )
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    found = as_api_error(error)
    return JSONResponse(found.body, found.status_code, headers=found.headers)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client has left; the log has the status
