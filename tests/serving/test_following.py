"""Following the alias: beside the old, asked once, switched, drained; a version that does not start changes nothing."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from leastwise.errors import BadInput
from leastwise.serving.following import share_of
from tests.serving.endpoints import Aliases, Running, running_endpoint, wait_for
from tests.serving.relay import Engine, running_engine

BOTH = {"champion": "1", "challenger": "2"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def aliases() -> Aliases:
    return Aliases()


def serves(endpoint: Running, version: str, alias: str = "champion") -> bool:
    return endpoint.service.follower.versions.get(alias) == version


def test_a_promotion_is_followed_within_five_seconds_and_a_rollback_too(engine: Engine, aliases: Aliases) -> None:
    with running_endpoint(aliases, poll_s=1.0) as endpoint:
        for version in ("2", "1"):
            aliases.held["champion"], moved = version, time.monotonic()
            wait_for(lambda version=version: endpoint.answer("a") == f"{version}: a", within_s=5)
            assert time.monotonic() - moved < 5
        wait_for(lambda: [version for version, _ in engine.closed] == ["1", "2"])


def test_no_request_is_dropped_while_versions_change_and_none_is_cut_off(engine: Engine, aliases: Aliases) -> None:
    engine.delay_s = 0.02
    with running_endpoint(aliases) as endpoint:
        answers: list[str] = []
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                reply = endpoint.chat("a")
                answers.append(reply.json()["choices"][0]["message"]["content"] if reply.status_code == 200 else "lost")

        asking = [threading.Thread(target=ask) for _ in range(8)]
        for each in asking:
            each.start()
        for version in ("2", "3", "1"):
            aliases.held["champion"] = version
            wait_for(lambda version=version: serves(endpoint, version))
            time.sleep(0.2)
        is_over.set()
        for each in asking:
            each.join()
    assert set(answers) == {"1: a", "2: a", "3: a"} and len(answers) > 50
    assert [in_flight for _, in_flight in engine.closed] == [0, 0, 0, 0]


def test_a_request_that_takes_long_is_answered_by_whom_it_was_put_to(engine: Engine, aliases: Aliases) -> None:
    with running_endpoint(aliases) as endpoint:
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(endpoint.answer("slow")))
        asking.start()
        wait_for(lambda: engine.in_flight.get("1", 0) == 1)
        aliases.held["champion"] = "2"
        wait_for(lambda: endpoint.answer("a") == "2: a")
        assert not engine.closed
        asking.join()
        assert answers == ["1: slow"]
        wait_for(lambda: engine.closed == [("1", 0)])


def test_a_version_that_does_not_start_leaves_the_old_one_serving_and_is_noted(
    engine: Engine, aliases: Aliases
) -> None:
    engine.broken.add("2")
    with running_endpoint(aliases) as endpoint:
        aliases.held["champion"] = "2"
        wait_for(lambda: aliases.notes)
        assert endpoint.answer("a") == "1: a" and serves(endpoint, "1")
        version, words = aliases.notes[0]
        assert version == "2" and "did not start" in words and "champion 1 goes on serving" in words
        assert "sk-" not in words
        assert endpoint.get("/metrics").text.count('leastwise_starts_total{outcome="failed"} 1.0') == 1
        aliases.held["champion"] = "3"
        wait_for(lambda: serves(endpoint, "3"))
        assert [version for version, _ in aliases.notes] == ["2", "3"]


def test_an_endpoint_that_starts_while_the_champion_does_not_serves_its_predecessor(
    engine: Engine, aliases: Aliases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.serving.following.FIRST_RETRY_S", 0.2)
    aliases.held["champion"], aliases.before = "2", "1"
    engine.broken.add("2")
    with running_endpoint(aliases) as endpoint:
        assert endpoint.answer("a") == "1: a" and aliases.notes[0][0] == "2"
        engine.broken.clear()
        wait_for(lambda: serves(endpoint, "2"))
    aliases.before = ""
    engine.broken.add("2")
    with pytest.raises(RuntimeError, match="has no weights"), running_endpoint(aliases):
        pass


def test_a_version_that_opens_and_does_not_answer_is_not_served(engine: Engine, aliases: Aliases) -> None:
    with pytest.raises(RuntimeError, match="did not answer"), running_endpoint(aliases, smoke_text="fail, please"):
        pass
    assert engine.closed == [("1", 0)]


def test_a_version_that_failed_is_tried_again(
    engine: Engine, aliases: Aliases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.serving.following.FIRST_RETRY_S", 0.2)
    engine.broken.add("2")
    with running_endpoint(aliases) as endpoint:
        aliases.held["champion"] = "2"
        wait_for(lambda: aliases.notes)
        engine.broken.clear()
        wait_for(lambda: serves(endpoint, "2"))


def test_a_rollback_while_a_version_opens_leaves_the_old_one_serving(aliases: Aliases, engine: Engine) -> None:
    from tests.serving.relay import open_version

    opened: list[str] = []

    async def opens_slowly(version: str):
        if version == "2":
            await asyncio.sleep(0.5)
        opened.append(version)
        return await open_version("toy", version)

    with running_endpoint(aliases, opener=opens_slowly) as endpoint:
        aliases.held["champion"] = "2"
        wait_for(lambda: endpoint.service.follower.starting == ["2"])
        aliases.held["champion"] = "1"
        wait_for(lambda: engine.closed == [("2", 0)])
        assert opened == ["1", "2"] and endpoint.answer("a") == "1: a"


def test_while_mlflow_is_away_what_serves_goes_on_serving(engine: Engine, aliases: Aliases) -> None:
    with running_endpoint(aliases) as endpoint:
        aliases.away = True
        wait_for(lambda: "leastwise_registry_failures_total 0.0" not in endpoint.get("/metrics").text)
        assert endpoint.answer("a") == "1: a"
        aliases.held["champion"], aliases.away = "2", False
        wait_for(lambda: serves(endpoint, "2"))


def test_a_champion_alias_that_is_deleted_ends_no_service(engine: Engine, aliases: Aliases) -> None:
    with running_endpoint(aliases) as endpoint:
        aliases.held.clear()
        time.sleep(0.4)
        assert endpoint.answer("a") == "1: a"


def test_without_a_champion_there_is_nothing_to_serve(engine: Engine) -> None:
    with pytest.raises(BadInput, match=r"no champion; promote"), running_endpoint(Aliases({})):
        pass


def test_a_share_of_the_traffic_goes_to_the_challenger_and_each_user_always_to_the_same(
    engine: Engine, aliases: Aliases
) -> None:
    aliases.held.update(BOTH)
    with running_endpoint(aliases, challenger_share=0.3) as endpoint:
        wait_for(lambda: serves(endpoint, "2", "challenger"))
        first = [endpoint.answer("a", user=f"user {number}") for number in range(30)]
        assert [endpoint.answer("b", user=f"user {number}")[0] for number in range(30)] == [each[0] for each in first]
        expected = ["2" if share_of("toy", f"user {number}") < 0.3 else "1" for number in range(30)]
        assert [each[0] for each in first] == expected and 3 < expected.count("2") < 18
        assert endpoint.answer("a", model="toy@challenger") == "2: a"
        aliases.held["champion"] = "2"
        del aliases.held["challenger"]
        wait_for(lambda: endpoint.service.follower.versions == {"champion": "2"})
        assert {endpoint.answer("a", user=f"user {number}") for number in range(9)} == {"2: a"}
        wait_for(lambda: engine.closed == [("1", 0)])  # the challenger that was promoted was open already


def test_a_growing_share_keeps_whom_it_had_and_is_met() -> None:
    units = [f"unit {number}" for number in range(20_000)]
    shares = [share_of("toy", unit) for unit in units]
    for share in (0.01, 0.1, 0.5, 0.9):
        assert sum(each < share for each in shares) / len(shares) == pytest.approx(share, abs=0.01)
    assert [share_of("toy", unit) for unit in units] == shares
    others = [share_of("another", unit) for unit in units]
    both = Counter((a < 0.5, b < 0.5) for a, b in zip(shares, others, strict=True))
    assert min(both.values()) > 4_500  # two use cases do not split the same users off


def test_a_shadow_is_asked_beside_and_delays_nobody(engine: Engine, aliases: Aliases) -> None:
    from tests.serving.relay import open_version

    class Late:
        def __init__(self, model: object) -> None:
            self.model, self.version, self.key, self.mask = model, model.version, model.key, model.mask

        async def answer(self, text: str):
            await asyncio.sleep(0.5 if text != "Are you there?" else 0)
            return await self.model.answer(text)

        async def aclose(self) -> None:
            await self.model.aclose()

    async def opens(version: str):
        made = await open_version("toy", version)
        return Late(made) if version == "2" else made

    aliases.held.update(BOTH)
    with running_endpoint(aliases, opener=opens, shadow_share=1.0, most_shadows=3) as endpoint:
        wait_for(lambda: serves(endpoint, "2", "challenger"))
        started = time.monotonic()
        assert {endpoint.answer(f"text {number}")[0] for number in range(5)} == {"1"}
        assert time.monotonic() - started < 0.5
        told = 'leastwise_shadows_total{outcome="answered"} 3.0'
        wait_for(lambda: told in endpoint.get("/metrics").text)
        assert 'leastwise_shadows_total{outcome="left_out"} 2.0' in endpoint.get("/metrics").text
    assert Counter(version for version, text in engine.asked if text.startswith("text")) == {"1": 5, "2": 3}
