"""An endpoint in a thread of the test's own: the real application behind a real uvicorn on a free port."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.serving import worker
from leastwise.serving.answering_service import AnsweringService
from leastwise.serving.following import Registered
from leastwise.serving.settings import EndpointSettings
from tests.serving import relay

QUIET = {"trace_rate": 0.0, "traffic_log": "", "poll_s": 0.1, "drain_s": 5.0}


@dataclass
class Aliases:
    """Aliases as a registry holds them, moved by the test; `away`: the registry cannot be asked."""

    held: dict[str, str] = field(default_factory=lambda: {"champion": "1"})
    notes: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    before: str = ""

    def read(self) -> dict[str, str]:
        if self.away:
            raise ConnectionError("MLflow is away")
        return dict(self.held)

    def registered(self) -> Registered:
        return Registered(self.read, lambda version, words: self.notes.append((version, words)), lambda: self.before)


@dataclass
class Running:
    """An endpoint that runs."""

    url: str
    service: AnsweringService
    end: Callable[[], None]
    client: httpx.Client

    def chat(self, text: str, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"model": "toy", "messages": [{"role": "user", "content": text}]} | more
        return self.client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)

    def answer(self, text: str, **more: Any) -> str:
        return self.chat(text, **more).json()["choices"][0]["message"]["content"]

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(f"{self.url}{path}", **more)


@contextmanager
def running_endpoint(
    aliases: Aliases, mask: tuple[str, ...] = (), opener: Any = None, **settings: Any
) -> Iterator[Running]:
    """An endpoint for as long as the block lasts."""
    made = EndpointSettings.model_validate(QUIET | settings)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    work = worker.Work(name="toy", mask=mask, settings=made, socket=listening.fileno())
    started, box = threading.Event(), {}

    async def serve() -> None:
        try:
            opening = opener or partial(relay.open_version, "toy")
            async with worker.service("toy", mask, made, opening, aliases.registered()) as service:
                box["service"] = service
                serving = asyncio.create_task(worker.serve(work, service, listening, on_server=keep))
                started.set()
                await serving
        except BaseException as error:
            box["error"] = error
        finally:
            started.set()

    def keep(server: Any) -> None:
        box["server"] = server

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait(20)
    if "error" in box:
        thread.join()
        raise box["error"]

    def end() -> None:
        box["server"].handle_exit(15, None)

    wait_for(lambda: "server" in box and box["server"].started)
    try:
        with httpx.Client(timeout=30, trust_env=False) as client:
            yield Running(url, box["service"], end, client)
    finally:
        end()
        thread.join(30)
        assert not thread.is_alive()


def three_versions() -> Registry:
    """A registered model `toy` with three versions, whose files nobody opens."""
    made = Registry(connect(), "toy")
    made._create_model()
    for _ in range(3):
        made.client.create_model_version("toy", source="file:///nowhere")
    return made


def wait_for(is_so: Callable[[], object], within_s: float = 10.0) -> None:
    """Until it is so; an assertion fails after `within_s`."""
    latest = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < latest, "it did not come to be so"
        time.sleep(0.02)
