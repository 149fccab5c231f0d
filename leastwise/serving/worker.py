"""One process that answers requests: `python -m leastwise.serving.worker`, started by `server.py` with what it needs in
its environment. It ends with the requests it has when it is asked to, and when its parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import lru_cache, partial
from importlib import import_module
from types import FrameType

import uvicorn

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.record.client import connect
from leastwise.record.published.pin import Pin
from leastwise.record.registry import Registry
from leastwise.redaction import hide_all, redacted
from leastwise.serving.answering_service import AnsweringService
from leastwise.serving.counters import Counters
from leastwise.serving.following import Follower, Registered
from leastwise.serving.live import Opener
from leastwise.serving.settings import EndpointSettings, keys_of
from leastwise.serving.traffic import Traffic
from leastwise.serving.web.admission import Admission
from leastwise.serving.web.routes import application

VARIABLE = "LEASTWISE_ENDPOINT"  # a Work as JSON
BAD_INPUT = 2
PARENT_POLL_S, SWITCH_S = 0.5, 0.0005
SIGNALS = (signal.SIGTERM, signal.SIGINT)
OPENING = "leastwise.serving.opening:open_version"

log = logging.getLogger(__name__)


class Work(Part):
    """What a worker serves. `socket`: the number of the listening socket it inherits; `opening`: MODULE:FUNCTION that
    opens a version (name, version). `pin`: what answers until the alias is moved; `load_key`: who shows it asks to
    measure the endpoint, and is logged apart.
    """

    name: str
    mask: tuple[str, ...] = ()
    settings: EndpointSettings
    socket: int
    opening: str = OPENING
    pin: Pin | None = None
    load_key: str = ""

    @property
    def label(self) -> str:
        """What its logs are called: two endpoints of one use case may run side by side."""
        return f"{self.name}-v{self.pin.version}" if self.pin else self.name


@contextlib.asynccontextmanager
async def service(
    name: str,
    mask: tuple[str, ...],
    settings: EndpointSettings,
    opener: Opener,
    registered: Registered,
    may_be_measured: bool = False,
) -> AsyncIterator[AnsweringService]:
    """A service that answers, for as long as the block lasts."""
    counters = Counters()
    traffic = Traffic(name, mask, settings, counters, may_be_measured)
    made = AnsweringService(Follower(name, registered, opener, settings, counters), traffic, settings, counters)
    try:
        await made.follower.start()
        yield made
    finally:
        await made.close()


async def serve(
    work: Work, made: AnsweringService, listening: socket.socket, on_server: Callable[[uvicorn.Server], object] = id
) -> None:
    """Answer until the process is asked to end; what is in flight is answered first. `on_server` is handed what ends
    it where no signal can.
    """
    admission = Admission(keys_of(work.settings), work.settings, made.counters, work.load_key)
    app = application(work.name, made, admission)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(work.settings.drain_s)),
    )
    server = _Server(config, made)
    if threading.current_thread() is threading.main_thread():
        for each in SIGNALS:
            signal.signal(each, server.handle_exit)
    on_server(server)
    watching = asyncio.create_task(_end_with_parent(server))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()


class _Server(uvicorn.Server):
    """uvicorn, which says at /health that it ends."""

    def __init__(self, config: uvicorn.Config, made: AnsweringService) -> None:
        super().__init__(config)
        self._made = made

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Asked to end: no new connection, and what is in flight is answered. uvicorn's own would raise the signal
        again once it is done, before the versions are closed and the log is written.
        """
        self._made.is_ending = self.should_exit = True


async def _end_with_parent(server: uvicorn.Server) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_POLL_S)
    server.should_exit = True


def registered(name: str, pin: Pin | None = None) -> Registered:
    """The registry of a use case's models, as whoever is pinned sees it; each call blocks, the first connects."""

    @lru_cache(maxsize=1)
    def registry() -> Registry:
        return Registry(connect(), name)

    def aliases() -> dict[str, str]:
        held = registry().aliases()
        return pin.aliases(held, registry().log) if pin else held

    def predecessor() -> str:
        before = registry().predecessor()
        return pin.predecessor(before) if pin else before

    return Registered(aliases, lambda version, words: registry().note_start(version, words), predecessor)


async def _run(work: Work, listening: socket.socket) -> None:
    module, _, function = work.opening.partition(":")
    opener = partial(getattr(import_module(module), function), work.name)
    seen = registered(work.name, work.pin)
    async with service(work.name, work.mask, work.settings, opener, seen, bool(work.load_key)) as made:
        _steady()
        await serve(work, made, listening)


def _steady() -> None:
    """Keep what is in the process for good from stopping requests: a full collection of MLflow's objects takes a
    quarter of a second, and a thread that writes may hold the interpreter for 5 ms each time.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def main() -> int:
    """Serve; gives back the exit status: 0 asked to end, 2 what a person can put right (its last line says what)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    hide_all(os.environ)
    for each in SIGNALS:
        signal.signal(each, _end)
    work = Work.model_validate_json(os.environ[VARIABLE])
    listening = socket.socket(fileno=work.socket)
    try:
        asyncio.run(_run(work, listening))
    except BadInput as error:
        print(redacted(str(error)), file=sys.stderr, flush=True)
        return BAD_INPUT
    except _Ended:
        pass
    return 0


class _Ended(BaseException):
    """Asked to end before anything was served."""


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise _Ended


if __name__ == "__main__":
    sys.exit(main())
