"""Which version answers: the alias is followed, a new version opened beside the old, asked once, switched to, and the
old one closed once nobody waits for it.

It moves no alias. A version that does not start leaves the old one serving, is noted in the promotion log, and is tried
again at growing intervals; while the registry is away, what serves goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from leastwise.errors import BadInput
from leastwise.record.published.moves import CHALLENGER, CHAMPION
from leastwise.redaction import redacted
from leastwise.serving.counters import Counters
from leastwise.serving.live import LiveModel, Opener
from leastwise.serving.settings import EndpointSettings

log = logging.getLogger(__name__)

FIRST_RETRY_S, MOST_RETRY_S = 5.0, 300.0
LOOK_S = 0.05


@dataclass(eq=False)
class Serving:
    """An open version, and how many requests wait for it."""

    version: str
    model: LiveModel
    in_flight: int = 0

    @contextlib.contextmanager
    def asked(self) -> Iterator[LiveModel]:
        """The model; it stays open for as long as the block lasts."""
        self.in_flight += 1
        try:
            yield self.model
        finally:
            self.in_flight -= 1


@dataclass(frozen=True)
class Chosen:
    """Who answers a request, and by which alias."""

    alias: str
    serving: Serving


@dataclass(frozen=True)
class Registered:
    """The registry as the endpoint uses it: which version an alias names, the note of how a version started, and the
    champion's predecessor (empty: none). Each blocks, and raises where it is away.
    """

    aliases: Callable[[], Mapping[str, str]]
    note: Callable[[str, str], None]
    predecessor: Callable[[], str]


@dataclass
class _Failure:
    """How often a version failed to start, and when it is tried again (monotonic seconds)."""

    count: int = 0
    again_at: float = 0.0


@dataclass(eq=False)
class Follower:
    """The versions that are open in this process, and which of them serves each alias."""

    name: str
    registered: Registered
    opener: Opener
    settings: EndpointSettings
    counters: Counters
    _wanted: dict[str, str] = field(default_factory=dict)
    _holders: dict[str, Serving] = field(default_factory=dict)
    _open: dict[str, Serving] = field(default_factory=dict)
    _starting: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _failures: dict[str, _Failure] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Open the champion, then follow the aliases; BadInput without a champion, else what its opening raises.

        Where it does not start its predecessor does, as if it had been serving when the champion came.
        """
        self._wanted.update(self._used(await asyncio.to_thread(self.registered.aliases)))
        if CHAMPION not in self._wanted:
            raise BadInput(f"models:/{self.name}@champion: there is no champion; promote a run first (flows.promote)")
        champion = self._wanted[CHAMPION]
        try:
            await self._start(champion)
        except Exception as error:
            before = await asyncio.to_thread(self.registered.predecessor)
            if not before or before == champion:
                raise
            await self._start(before)
            self._serve(CHAMPION, self._open[before])
            await self._failed(champion, error)
        self._settle()
        self._spawn(self._follow())

    @property
    def versions(self) -> dict[str, str]:
        """The version that answers for each alias now."""
        return {alias: serving.version for alias, serving in self._holders.items()}

    @property
    def starting(self) -> list[str]:
        """The versions that are being opened."""
        return sorted(self._starting)

    def holder(self, alias: str) -> Serving | None:
        """Who answers for an alias now; None where nobody does."""
        return self._holders.get(alias)

    def chosen(self, unit: str) -> Chosen:
        """Which alias answers this unit of the traffic, always the same one at the same share, and who that is now."""
        challenger = self._holders.get(CHALLENGER)
        if challenger and share_of(self.name, unit) < self.settings.challenger_share:
            return Chosen(CHALLENGER, challenger)
        return Chosen(CHAMPION, self._holders[CHAMPION])

    async def close(self) -> None:
        """Follow no longer and close every version; requests in flight have ended by now."""
        tasks = [*self._tasks, *self._starting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(_closed(serving) for serving in self._open.values()))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_s)
            try:
                wanted = self._used(await asyncio.to_thread(self.registered.aliases))
                champion = self._wanted[CHAMPION]
                self._wanted.clear()
                self._wanted.update({CHAMPION: champion} | wanted)  # an alias that somebody deleted ends no service
                self._settle()
                self._start_missing()
            except Exception as error:  # MLflow away: what serves goes on, and the next turn asks again
                self.counters.registry_failures.inc()
                log.warning(f"the registry could not be followed: {redacted(f'{type(error).__name__}: {error}')[:300]}")

    def _used(self, aliases: Mapping[str, str]) -> dict[str, str]:
        used = (CHAMPION, CHALLENGER) if self.settings.asks_challenger else (CHAMPION,)
        return {alias: aliases[alias] for alias in used if alias in aliases}

    def _start_missing(self) -> None:
        for version in set(self._wanted.values()) - self._open.keys() - self._starting.keys():
            failure = self._failures.get(version)
            if failure is None or time.monotonic() >= failure.again_at:
                task = asyncio.create_task(self._try(version))
                self._starting[version] = task
                task.add_done_callback(lambda _, version=version: self._starting.pop(version, None))  # type: ignore[misc]  # a default of a lambda has no type

    async def _try(self, version: str) -> None:
        """Open a version beside what serves, and switch to it; one that does not start is noted and tried again."""
        try:
            await self._start(version)
        except Exception as error:
            await self._failed(version, error)
        else:
            self._failures.pop(version, None)
            self._settle()
            await self._note(version, f"started {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")

    async def _failed(self, version: str, error: Exception) -> None:
        failure = self._failures.setdefault(version, _Failure())
        wait_s = min(FIRST_RETRY_S * 2**failure.count, MOST_RETRY_S)
        failure.count, failure.again_at = failure.count + 1, time.monotonic() + wait_s
        self.counters.started("failed")
        still = ", ".join(f"{alias} {serving.version}" for alias, serving in self._holders.items())
        why = f"{type(error).__name__}: {redacted(str(error)) or 'no words'}"
        await self._note(version, f"did not start ({why}); {still} goes on serving")

    async def _start(self, version: str) -> None:
        async with asyncio.timeout(self.settings.start_timeout_s):
            model = await self.opener(version)
            try:
                answer = await model.answer(self.settings.smoke_text)
                if answer.text is None:
                    raise RuntimeError(f"it did not answer: {answer.error or 'no reason'}")
            except BaseException:
                await _closed(Serving(version, model))
                raise
        self._open[version] = Serving(version, model)
        self.counters.started("started")

    def _settle(self) -> None:
        """Let each alias be served by the version it names, where that is open; retire what nobody needs."""
        for alias, version in self._wanted.items():
            if version in self._open:
                self._serve(alias, self._open[version])
        for alias in self._holders.keys() - self._wanted.keys():
            self.counters.serves(alias, "", self._holders.pop(alias).version)
        needed = {*self._wanted.values(), *(serving.version for serving in self._holders.values())}
        for version in self._open.keys() - needed:
            self._spawn(self._retire(self._open.pop(version)))

    def _serve(self, alias: str, serving: Serving) -> None:
        held = self._holders.get(alias)
        if serving is held:
            return
        before = held.version if held else ""
        self._holders[alias] = serving
        self.counters.serves(alias, serving.version, before)
        log.info(f"{self.name}@{alias}: version {before or 'none'} → {serving.version}")

    async def _retire(self, serving: Serving) -> None:
        """Close a version once its requests are answered, or have had all the time an answer may take."""
        latest = time.monotonic() + max(self.settings.drain_s, self.settings.answer_timeout_s)
        try:
            while serving.in_flight and time.monotonic() < latest:
                await asyncio.sleep(LOOK_S)
        finally:
            await _closed(serving)

    async def _note(self, version: str, words: str) -> None:
        log.info(f"{self.name}: version {version} {words}")
        try:
            await asyncio.to_thread(self.registered.note, version, words)
        except Exception as error:
            log.warning(f"how version {version} started could not be noted: {redacted(type(error).__name__)}")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def share_of(name: str, unit: str) -> float:
    """Where a unit of the traffic lies in 0..1: the same at every start, in every worker and for every version, so
    that a growing share keeps whom it had.
    """
    return int.from_bytes(hashlib.sha256(f"{name}\0{unit}".encode()).digest()[:8]) / 2**64


async def _closed(serving: Serving) -> None:
    try:
        await serving.model.aclose()
    except Exception as error:
        log.warning(f"version {serving.version} did not close well: {redacted(str(error))[:200]}")
