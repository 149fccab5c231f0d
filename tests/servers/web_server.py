"""A web server of a test's own, on a free port of this machine, in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


@contextmanager
def served(*routes: web.RouteDef) -> Iterator[str]:
    """The address of a running server with these routes; it ends with the block."""
    loop, started, ports = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        app = web.Application()
        app.add_routes(routes)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    started.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def chat_completion(model: str, text: str, input_tokens: int, output_tokens: int, **choice: Any) -> web.Response:
    """An answer as OpenAI's chat interface gives it; `choice` adds to the only choice (log-probabilities, say)."""
    message = {"role": "assistant", "content": text}
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    only = {"index": 0, "message": message, "finish_reason": "stop"} | choice
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": model}
    return web.json_response(head | {"choices": [only], "usage": usage})
