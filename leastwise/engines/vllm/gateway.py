"""The child process that runs vLLM and is the only way to it: `/v1` with a key of ours, streamed or not; started by
`server.py`, not by hand.

vLLM's own key guards a part of its routes only, so it listens on a socket file in a folder of this user alone. It
changes no request and no answer. A caller that goes away ends its request there; asked to drain (SIGUSR1) it refuses
new requests, lets those in flight end, and ends with vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from leastwise.engines.llama_server import PARENT_POLL_S
from leastwise.engines.vllm.command import KEY_VARIABLE, environment_of
from leastwise.engines.vllm.settings import VllmSettings

GATEWAY_KEY_VARIABLE = "LEASTWISE_GATEWAY_KEY"
FORWARDED = ("chat/completions", "completions", "models", "embeddings", "responses")  # of /v1; none that sets anything
MOST_BODY_BYTES = 32_000_000
CHUNK_BYTES = 65_536
GRACE_S = 10.0  # that vLLM gets to end once nobody waits for it
CONNECT_S = 5.0


class Gateway:
    """The routes, and how many requests are in flight."""

    def __init__(self, upstream: aiohttp.ClientSession, key: str, upstream_key: str) -> None:
        self._upstream, self._key = upstream, key
        self._shown = {"Authorization": f"Bearer {upstream_key}"}
        self.in_flight, self.is_draining = 0, False

    def application(self) -> web.Application:
        """What is served."""
        made = web.Application(client_max_size=MOST_BODY_BYTES)
        made.router.add_get("/health", self.health)
        made.router.add_get("/metrics", self.metrics)
        made.router.add_route("*", "/v1/{tail:.*}", self.forward)
        return made

    async def health(self, _request: web.Request) -> web.Response:
        """Whether vLLM says that it is well, and takes requests."""
        if self.is_draining:
            return web.Response(status=503)
        try:
            async with self._upstream.get("/health") as answer:
                return web.Response(status=200 if answer.status == 200 else 503)
        except aiohttp.ClientError:
            return web.Response(status=503)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """vLLM's counts, for whoever has the key."""
        return self._refused(request) or await self._passed_on(request, "/metrics")

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """A request of OpenAI's interface as it came, and its answer as it comes."""
        if (refused := self._refused(request)) is not None:
            return refused
        if request.match_info["tail"] not in FORWARDED:
            return _said(404, "there is no such route here")
        if self.is_draining:
            return _said(503, "ends; it takes no new request", {"Retry-After": "1"})
        self.in_flight += 1
        try:
            return await self._passed_on(request, f"/v1/{request.match_info['tail']}")
        finally:
            self.in_flight -= 1

    def _refused(self, request: web.Request) -> web.Response | None:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return None if hmac.compare_digest(shown.encode(), self._key.encode()) else _said(401, "this key opens nothing")

    async def _passed_on(self, request: web.Request, path: str) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in ("Content-Type", "Accept") if name in request.headers}
        body = await request.read() if request.can_read_body else None
        try:
            async with self._upstream.request(request.method, path, data=body, headers=headers | self._shown) as answer:
                told = {
                    name: answer.headers[name] for name in ("Content-Type", "Content-Length") if name in answer.headers
                }
                response = web.StreamResponse(status=answer.status, headers=told)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectorError:
            return _said(502, "vLLM does not answer")


def _said(status: int, words: str, headers: Mapping[str, str] | None = None) -> web.Response:
    error = {"message": words, "type": "gateway", "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


async def serve(arguments: argparse.Namespace, engine: subprocess.Popen[bytes]) -> int:
    """Until vLLM or the parent is gone, we are ended, or drained; gives back the exit status."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    connector = aiohttp.UnixConnector(path=str(arguments.socket), limit=0)
    async with aiohttp.ClientSession("http://vllm", connector=connector, timeout=timeout) as upstream:
        gateway = Gateway(upstream, os.environ[GATEWAY_KEY_VARIABLE], os.environ[KEY_VARIABLE])
        loop.add_signal_handler(signal.SIGTERM, told.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(gateway, "is_draining", True))
        # A handler whose caller has gone is cancelled, and with it the request to vLLM, which then computes no further.
        runner = web.AppRunner(gateway.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", arguments.port).start()
        try:
            while not told.is_set() and os.getppid() == arguments.parent_pid:
                if engine.poll() is not None:
                    return 1
                if gateway.is_draining and gateway.in_flight == 0:
                    return 0
                await asyncio.sleep(PARENT_POLL_S)
            return 0
        finally:
            await runner.cleanup()


def main() -> None:
    """Start vLLM under a guard that ends it with us, serve, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--settings", type=VllmSettings.model_validate_json, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    guarded = [sys.executable, "-m", "leastwise.engines.parent_guard", *arguments.command]
    key, home = os.environ[KEY_VARIABLE], arguments.socket.parent
    environment = environment_of(arguments.settings, arguments.threads, key, os.environ, home)
    engine = subprocess.Popen(guarded, env=environment)
    try:
        status = asyncio.run(serve(arguments, engine))
    finally:
        _end(engine)
    sys.exit(status)


def _end(engine: subprocess.Popen[bytes]) -> None:
    if engine.poll() is None:
        engine.send_signal(signal.SIGUSR1)
        try:
            engine.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            engine.terminate()
            engine.wait()


if __name__ == "__main__":
    main()
