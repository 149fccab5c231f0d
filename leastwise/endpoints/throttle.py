"""How many calls are sent at a time and a second, adapted to what a provider takes. It sends none."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Coroutine
from functools import partial

from leastwise.errors import BadInput

FIRST_LIMIT = 16
LONGEST_RETRY_AFTER_S = 60.0
WINDOW_S = 1.1  # a second by the provider's clock, however late it saw the calls


def pause_s(retry_after_s: float | None, attempt: int, backoff_s: tuple[float, float]) -> float:
    """Seconds to wait after a failed attempt (from 0): as long as its provider says, else from the first to the most
    of `backoff_s`, doubled each time, with jitter; none where the provider says longer than is waited for.
    """
    if retry_after_s is not None:
        return retry_after_s if retry_after_s <= LONGEST_RETRY_AFTER_S else 0.0
    first, most = backoff_s
    return random.uniform(0.5, 1.0) * float(min(most, first * 2**attempt))


async def drain(work: deque[partial[Coroutine[None, None, None]]], workers: int) -> None:
    """Start work in order, `workers` at a time; after the first error start no more, but finish what was started."""
    errors: list[BaseException] = []

    async def worker() -> None:
        while work and not errors:
            try:
                await work.popleft()()
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*(worker() for _ in range(min(workers, len(work)))))
    if errors:
        raise errors[0]


class Throttle:
    """Adapts how many calls are in flight, and after the first 429 how many are sent a second.

    In flight: starts low, one more per success, halved by a 429, then grows slowly (additive increase, multiplicative
    decrease; Chiu & Jain 1989) below a ceiling. A Retry-After holds back every call, since the limit is the provider's,
    not the request's. Calls in flight alone cannot keep to a limit per second, so what was accepted in the last second
    is taken for the rate that is allowed (see `Pace`), and no fewer may be in flight than that rate needs.
    """

    def __init__(self, ceiling: int) -> None:
        if ceiling < 1:
            raise BadInput(f"concurrency is {ceiling}; at least 1 request must be allowed in flight")
        self.ceiling, self.limit = ceiling, float(min(ceiling, FIRST_LIMIT))
        self.pace = Pace()
        self._in_flight, self._not_before, self._halved_at, self._limited = 0, 0.0, -math.inf, False
        self._seconds_a_call = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self._in_flight >= int(self.limit):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._in_flight += 1
        try:
            while (wait_s := max(self._not_before - time.monotonic(), self.pace.wait_s(time.monotonic()))) > 0:
                await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            await self.__aexit__()
            raise
        self.pace.sent(time.monotonic())

    async def __aexit__(self, *_: object) -> None:
        self._in_flight -= 1
        room = int(self.limit) - self._in_flight
        while self._waiters and room > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def speed_up(self, seconds: float = 0.0) -> None:
        """A call that took so long went well: one more in flight, or a part of one after the first 429."""
        self._seconds_a_call += (seconds - self._seconds_a_call) / 8
        self.limit = min(self.ceiling, self.limit + (1 / self.limit if self._limited else 1.0))

    def slow_down(self, retry_after_s: float | None) -> None:
        """A call was refused for its rate: halve once per burst (the others in flight were sent before we knew)."""
        now = time.monotonic()
        if (retry_after_s or 0.0) <= LONGEST_RETRY_AFTER_S:  # who says longer is not waited for (see `AsyncAsker`)
            self._not_before = max(self._not_before, now + (retry_after_s or 0.0))
        self._limited = True
        self.pace.refused(now)
        if now - self._halved_at > 1.0:
            needed = 1 + math.ceil(1.25 * self.pace.per_s(now) * self._seconds_a_call)
            self.limit, self._halved_at = max(1.0, self.limit / 2, min(needed, self.limit)), now


class Pace:
    """How many calls a second may be sent: no limit before the first 429, then a little below what was accepted.

    Calls accepted in the second before a 429 are what the provider allows a second; a burst it allowed on top is found
    out by the next ones. From 95% of that the pace grows as exp(0.01 t + (t/20)^3), t seconds after the last 429: it is
    back at the limit after about 5 s, so that probing costs few 429s, and a limit that was raised is found within a
    minute (the shape is that of CUBIC, RFC 9438, on the logarithm). A 429 before there was time to see a rate says
    little, so from there the pace doubles every second instead. All times are seconds of one clock.
    """

    def __init__(self) -> None:
        self._allowed, self._refused_at, self._started_at = math.inf, 0.0, math.nan
        self._is_guess = False
        self._accepted: deque[float] = deque()

    def per_s(self, now: float) -> float:
        """Calls a second that may be sent now; infinite before the first 429."""
        quiet_s = min(now - self._refused_at, 60.0)
        growth = math.log(2) * quiet_s if self._is_guess else 0.01 * quiet_s + (quiet_s / 20) ** 3
        return 0.95 * self._allowed * math.exp(growth)

    def wait_s(self, now: float) -> float:
        """Seconds until the next call may be sent: evenly spaced, and never more than a second's worth in a second."""
        self._forget(now)
        pace = self.per_s(now)
        if math.isinf(pace) or not self._accepted:
            return 0.0
        most = max(1, int(pace))
        room_at = self._accepted[-most] + WINDOW_S if len(self._accepted) >= most else 0.0
        return max(self._accepted[-1] + 1 / pace, room_at) - now

    def sent(self, now: float) -> None:
        """A call is on its way, and counts as accepted unless it is refused."""
        if math.isnan(self._started_at):
            self._started_at = now
        self._accepted.append(now)

    def refused(self, now: float) -> None:
        """A call came back with 429."""
        self._forget(now)
        if self._accepted:
            self._accepted.pop()
        seen = max(1.0, sum(at > now - 1 for at in self._accepted))
        # One odd second must not cost many slow ones.
        least = 0.0 if math.isinf(self._allowed) else 0.7 * self.per_s(now)
        self._allowed, self._refused_at = max(seen, least), now
        self._is_guess = now - self._started_at < 0.3

    def _forget(self, now: float) -> None:
        while self._accepted and self._accepted[0] <= now - WINDOW_S:
            self._accepted.popleft()
