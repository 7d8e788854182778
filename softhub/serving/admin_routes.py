"""Names, loading and unloading of prompts, health and metrics.

The routes that load and unload are named after vLLM's for LoRA. They exist only if the server has
a key for administration, which is another than those of clients.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from softhub.serving.api_types import LoadBody, UnloadBody
from softhub.serving.context import Context, log_fields
from softhub.serving.errors import ApiError
from softhub.serving.keys import Keys
from softhub.serving.names import BASE

_READ = ["GET", "HEAD"]
"""Methods of load balancers."""


def model_routes(context: Context) -> APIRouter:
    """Return the routes that list models, and tell how the server is."""
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        base = context.engine.base_name
        names = dict.fromkeys((base, BASE, *context.engine.prompts))  # `base` may be called so
        return {"object": "list", "data": [_record(context, name) for name in names]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        await context.names.find(name)
        return _record(context, name)

    @router.api_route("/health", methods=_READ)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.api_route("/ready", methods=_READ)
    async def ready() -> Response:
        state = context.engine.state()
        body = {"status": "ready" if state.ready else "not ready", "waiting": state.waiting}
        return JSONResponse(body, 200 if state.ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(context.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def admin_routes(context: Context, keys: Keys) -> APIRouter:
    """Return the routes that load and unload prompts, for those who have one of the keys."""
    router = APIRouter()

    def check(request: Request) -> None:
        if not keys.accept(request.headers.get("authorization")):
            raise ApiError(
                403,
                "Loading and unloading prompts requires an admin key.",
                code="insufficient_permissions",
            )

    @router.post("/v1/load_prompt_adapter")
    async def load(body: LoadBody, request: Request) -> dict[str, str]:
        check(request)
        await context.names.load(body.prompt_name, body.prompt_path, force=body.force)
        log_fields(request, model=body.prompt_name)
        return {"status": "loaded", "prompt_name": body.prompt_name}

    @router.post("/v1/unload_prompt_adapter")
    async def unload(body: UnloadBody, request: Request) -> dict[str, str]:
        check(request)
        context.names.unload(body.prompt_name)
        log_fields(request, model=body.prompt_name)
        return {"status": "unloaded", "prompt_name": body.prompt_name}

    return router


def _record(context: Context, name: str) -> dict[str, Any]:
    base = context.engine.base_name
    return {
        "id": name,
        "object": "model",
        "created": context.names.created,
        "owned_by": "softhub",
        "root": name,
        "parent": None if name == base else base,
    }
