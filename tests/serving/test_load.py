"""Closed loops against a real server: throughput grows with what is in flight as far as the server goes."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from leastwise.serving.deployed.load import Asked, carried
from leastwise.serving.web.admission import LOAD_HEADER
from tests.servers.web_server import chat_completion, served

DELAY_S, AT_ONCE = 0.02, 4


class Server:
    """Answers so many at once, each after the delay; keeps what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.keys: set[tuple[str | None, str | None]] = set()
        self.status = 200
        self._seats = asyncio.Semaphore(AT_ONCE)

    async def answer(self, request: web.Request) -> web.Response:
        self.keys.add((request.headers.get(LOAD_HEADER), request.headers.get("authorization")))
        self.texts.append((await request.json())["messages"][0]["content"])
        async with self._seats:
            await asyncio.sleep(DELAY_S)
        return chat_completion("m", "x", 1, 1) if self.status == 200 else web.Response(status=self.status)


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made = Server()
    with served(web.post("/v1/chat/completions", made.answer)) as url:
        yield made, url


def test_throughput_grows_with_what_is_in_flight_until_the_server_has_no_more(server: tuple[Server, str]) -> None:
    made, url = server
    texts = [f"text {number}" for number in range(400)]
    done = carried(Asked(url, "toy", "measuring", "a-key"), texts, None, 64, 0.3)
    rates = {each.concurrency: each.requests_per_s for each in done.levels}
    assert rates[2] > 1.6 * rates[1] and rates[4] > 1.6 * rates[2], rates
    assert max(rates) < 64 and rates[1] < 1 / DELAY_S and max(rates.values()) < AT_ONCE / DELAY_S
    by = {each.concurrency: each for each in done.levels}
    assert 20 <= by[1].quantile_ms(0.5) < 40 and by[8].quantile_ms(0.5) >= 35, "what waits for a seat takes longer"
    assert all(len(each.latencies_ms) >= 20 for each in done.levels) and not by[1].errors
    assert made.texts[:100] == texts[:100] and made.keys == {("measuring", "Bearer a-key")}


def test_what_takes_over_twice_the_bound_is_looked_at_no_further(server: tuple[Server, str]) -> None:
    _, url = server
    done = carried(Asked(url, "toy"), ["a", "b"], DELAY_S * 1000 / 2.2, 64, 0.1)
    assert [each.concurrency for each in done.levels] == [1] and done.within_bound is None


def test_errors_are_counted_and_end_it(server: tuple[Server, str]) -> None:
    made, url = server
    made.status = 503
    (only,) = carried(Asked(url, "toy"), ["a"], None, 64, 0.1).levels
    assert only.errors == len(only.latencies_ms) >= 20 and only.requests_per_s == 0
    began = time.monotonic()
    (gone,) = carried(Asked("http://127.0.0.1:9", "toy"), ["a"], None, 64, 0.1).levels
    assert gone.errors == len(gone.latencies_ms) and time.monotonic() - began < 5


def test_behind_a_cache_no_text_is_asked_twice_and_what_is_left_is_measured(server: tuple[Server, str]) -> None:
    made, url = server
    done = carried(Asked(url, "toy"), [f"text {number}" for number in range(40)], None, 64, 0.1, repeats=False)
    assert len(made.texts) == len(set(made.texts)) == 40 and sum(len(each.latencies_ms) for each in done.levels) == 39
