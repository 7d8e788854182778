"""A Ray Serve application whose replicas each run vLLM with softhub's plug-in. Not run.

Ray Serve spreads requests over the replicas and starts new ones; every replica loads the same lock
file. Requests are passed on as they are, streams included.
"""

import os
import socket
import subprocess

import httpx
from fastapi import FastAPI, Request
from ray import serve
from starlette.responses import StreamingResponse

from softhub.serving.vllm.launch import vllm_launch

api = FastAPI()


@serve.deployment
@serve.ingress(api)
class SoftPrompts:
    def __init__(self, base: str, prompts: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = vllm_launch(base, prompts, port=port)
        self._server = subprocess.Popen(launch.command, env={**os.environ, **launch.environment})
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600)

    async def check_health(self) -> None:
        if self._server.poll() is not None:
            raise RuntimeError(f"vLLM ended with status {self._server.returncode}.")

    @api.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: Request) -> StreamingResponse:
        forwarded = self._client.build_request(
            request.method,
            f"/{path}",
            content=await request.body(),
            headers={name: request.headers[name] for name in request.headers if name != "host"},
        )
        answer = await self._client.send(forwarded, stream=True)
        kind = answer.headers.get("content-type")
        return StreamingResponse(answer.aiter_raw(), answer.status_code, media_type=kind)


def app(args: dict) -> serve.Application:
    return SoftPrompts.bind(args["base"], args["prompts"])
