"""A chat server of ours on this machine, in a process of its own: what stands in for a provider in measurements of what
is in front of it. It measures nothing.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from aiohttp import web

CHAT = "/v1/chat/completions"
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "impact"}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
    }
)
END_S = 10.0


def answered() -> web.Response:
    """The one answer it gives."""
    return web.Response(text=ANSWER, content_type="application/json")


async def listen(*routes: web.RouteDef) -> tuple[web.AppRunner, str]:
    """A server with these routes on a free port, and its address."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@contextmanager
def process(serve: Callable[..., object], *arguments: object) -> Iterator[Connection]:
    """What talks to a server in a process of its own, which is handed the other end of the pipe and these arguments;
    it is ended with the block.
    """
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, *arguments), daemon=True)
    child.start()
    try:
        yield ours
    finally:
        if child.is_alive():
            child.terminate()
        child.join(END_S)
        child.kill()
