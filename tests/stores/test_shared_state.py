"""Several machines, one state: caps hold over all, however processes and the database die, and nothing is lost."""

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.redaction import redacted
from leastwise.stores.answer_store import ResponseStore, stored_now
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import NANO, Ledger, current_month
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.shared import address as addresses
from leastwise.stores.shared import owners, state
from leastwise.stores.shared.answers import SharedAnswers
from leastwise.stores.shared.connection import Session, StateAway
from leastwise.stores.shared.ledger import SharedLedger
from leastwise.stores.shared.turns import SharedTurns
from leastwise.stores.shared.writer import LeaseLost
from leastwise.use_case.price import Usage
from tests.servers.postgres_server import Postgres, postgres_server

ROOT = Path(__file__).parents[2]
AN_HOUR_AGO = "UPDATE leastwise.owners SET heard = heard - interval '1 hour', sign = '' WHERE owner = %s"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres_server(tmp_path_factory.mktemp("postgres"), "state") as server:
        yield server


@pytest.fixture
def shared(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The state of this test is there."""
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=20")
    return postgres


def machine(tmp_path: Path, name: str) -> state.SharedState:
    """The state as another process has it open."""
    where = addresses.address()
    assert where is not None
    return state._open(where, tmp_path / name)


def ledger_of(opened: state.SharedState) -> SharedLedger:
    return SharedLedger(opened.writer, opened.reader)


def asked(postgres: Postgres, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.uri.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(params=["file", "postgres"])
def open_ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Callable[[], Ledger]]:
    """How to open one new ledger from one process after another, of either kind."""
    if request.param == "file":

        def new_file() -> Callable[[], Ledger]:
            path = tmp_path_factory.mktemp("ledger") / "ledger.db"
            return lambda: LedgerFile(path)

        return new_file
    postgres: Postgres = request.getfixturevalue("postgres")
    monkeypatch.setenv("LEASTWISE_STATE", postgres.uri)
    home = tmp_path_factory.mktemp("home")
    both = [ledger_of(machine(home, name)) for name in "ab"]  # a process of two machines each

    def new_shared() -> Callable[[], Ledger]:
        asked(postgres, "TRUNCATE leastwise.calls, leastwise.totals")
        turn = iter(both * 100)
        return lambda: next(turn)

    return new_shared


def kill(ledger: Ledger) -> None:
    """As if its process had died: its calls in flight are given up by the next who looks."""
    if isinstance(ledger, LedgerFile):
        ledger._connection.execute("UPDATE calls SET owner = 'dead' WHERE state = 'open'")
        ledger._settle_orphans()
        return
    assert isinstance(ledger, SharedLedger)
    ledger._writer.flush()
    me = ledger._writer.owner
    ledger._reader.patiently(lambda each: each.execute(AN_HOUR_AGO, (me.name,)))
    ledger._reader.patiently(lambda each: owners.give_up(each, owners.Owner("another", "")))


STEP = st.tuples(st.integers(0, 400_000_000), st.integers(0, 100), st.sampled_from("rrrswxk"), st.booleans())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=16))
def test_no_interleaving_of_reserving_settling_and_dying_passes_a_cap_by_a_billionth(
    open_ledger: Callable[[], Callable[[], Ledger]], steps: list[tuple[int, int, str, bool]]
) -> None:
    opened = open_ledger()
    pair, open_calls = [opened(), opened()], list[tuple[int, int, int]]()
    caps = [Caps("one", 1.0, 1.5), Caps("two", 1.0, 1.5)]  # two climbs of a month
    spent, reserved = [0, 0], [0, 0]  # what must stand there, billionths
    for drawn, share, what, is_second in steps:
        who, nano = int(is_second), math.ceil(drawn / NANO * NANO)  # dollars are no whole billionths: rounded up
        if what == "r":
            is_allowed = spent[who] + reserved[who] + nano <= NANO and sum(spent) + sum(reserved) + nano <= 1.5 * NANO
            try:
                call = pair[who].reserve(caps[who], "case", "prompt", drawn / NANO)
            except BudgetExceeded:
                assert not is_allowed
                continue
            assert is_allowed
            open_calls.append((who, call, nano))
            reserved[who] += nano
        elif what == "k":
            kill(pair[who])
            for each in [each for each in open_calls if each[0] == who or isinstance(pair[0], LedgerFile)]:
                open_calls.remove(each)
                spent[each[0]] += each[2]
                reserved[each[0]] -= each[2]
        elif open_calls:
            owner, call, worst = open_calls.pop(share % len(open_calls))
            nano = worst * share // 100
            actual = {"s": round(nano / NANO * NANO), "w": worst, "x": 0}[what]
            end = {
                "s": lambda c=call, o=owner, a=actual: pair[o].settle(c, a / NANO),
                "w": lambda c=call, o=owner: pair[o].settle_at_worst(c),
                "x": lambda c=call, o=owner: pair[o].release(c),
            }
            end[what]()
            spent[owner] += actual
            reserved[owner] -= worst
        for climb, at in (("one", 0), ("two", 1)):
            pair[0].spent("any")  # what the other asked is written when it is read from here
            ledger = pair[at]
            assert ledger.spent(climb) == pytest.approx(spent[at] / NANO, abs=1e-12)
            assert ledger.reserved(climb) == pytest.approx(reserved[at] / NANO, abs=1e-12)
            assert spent[at] + reserved[at] <= NANO
        assert sum(spent) + sum(reserved) <= 1.5 * NANO


def worker(home: Path, name: str, calls: int, cap: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stores.shared_worker", str(home / name), name, str(calls), str(cap)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_three_machines_pay_600_calls_and_lose_none_though_one_is_killed_and_the_database_dies_twice(
    shared: Postgres, tmp_path: Path
) -> None:
    state.open_state(tmp_path / "here")  # makes the tables
    asked(shared, "TRUNCATE leastwise.calls, leastwise.totals, leastwise.answers, leastwise.latencies")
    cap, most = 0.7, 0.0
    running = {name: worker(tmp_path, name, 260, cap) for name in ("a", "b", "killed")}
    out = running["killed"].stdout
    assert out is not None
    known = [int(out.readline()) for _ in range(2)][-1]  # so many are durable by its own word
    running["killed"].kill()
    for _ in range(2):
        shared.crash()
        time.sleep(0.2)
        shared.start()
        time.sleep(0.4)
    while any(each.poll() is None for name, each in running.items() if name != "killed"):
        try:
            ((total,),) = asked(
                shared, "SELECT spent_nano_usd + reserved_nano_usd FROM leastwise.totals WHERE scope = 'climb:climb'"
            )
            most = max(most, total / NANO)
        except psycopg.OperationalError:
            pass
        time.sleep(0.02)
    said = {}
    for name in "ab":
        lines, errors = running[name].communicate()
        assert running[name].returncode == 0, errors
        said[name] = json.loads(lines.splitlines()[-1])
    running["killed"].communicate()
    ledger = ledger_of(machine(tmp_path, "killed"))  # by the state directory of the dead they are known at once
    ((sums, calls),) = asked(
        shared, "SELECT sum(actual_nano_usd), count(*) FROM leastwise.calls WHERE state != 'released'"
    )
    assert ledger.reserved("climb") == 0 and ledger.spent("climb") == pytest.approx(float(sums) / NANO, abs=1e-12)
    assert most <= cap + 1e-12 and ledger.spent("climb") <= cap
    counts = ledger.counts("climb")
    assert counts.get("unknown", 0) <= 4 and sum(counts.values()) == calls  # what one had in flight when it was killed
    kept = {key for (key,) in asked(shared, "SELECT key FROM leastwise.answers")}
    for name in "ab":
        assert {f"{name}-{call}" for call in said[name]["settled"]} <= kept
        assert len(said[name]["settled"]) + said[name]["refused"] == 260
    of_killed = [key for key in kept if key.startswith("killed-")]
    assert len(of_killed) >= known
    assert counts["settled"] == len(kept)  # an answer and its settlement are kept together or not at all


def test_who_was_given_up_and_comes_back_books_what_its_call_cost_and_goes_on(shared: Postgres, tmp_path: Path) -> None:
    opened, other = machine(tmp_path, "slept"), machine(tmp_path, "other")
    ledger, caps = ledger_of(opened), Caps("slept", 1.0)
    call, released = ledger.reserve(caps, "case", "prompt", 0.4), ledger.reserve(caps, "case", "prompt", 0.2)
    asked(shared, AN_HOUR_AGO, opened.writer.owner.name)
    other.reader.patiently(lambda database: owners.give_up(database, other.writer.owner))
    assert ledger_of(other).spent("slept") == pytest.approx(0.6) and ledger_of(other).reserved("slept") == 0
    ledger.settle(call, 0.1)
    ledger.release(released)
    assert (ledger.spent("slept"), ledger.reserved("slept")) == (0.1, 0.0)
    with pytest.raises(ValueError, match="exactly once"):
        ledger.settle(call, 0.1)
    ledger.settle(ledger.reserve(caps, "case", "prompt", 0.4), 0.2)
    assert ledger.spent("slept") == pytest.approx(0.3)


def test_a_wrong_clock_of_a_machine_moves_neither_month_nor_life(
    shared: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, other = machine(tmp_path, "right"), machine(tmp_path, "wrong")
    right = ledger_of(opened).reserve(Caps("clocks", 1.0), "clocks", "prompt", 0.1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90 * 24 * 3600)
    ledger = ledger_of(other)
    ledger.settle(ledger.reserve(Caps("clocks", 1.0), "clocks", "prompt", 0.2), 0.2)
    other.reader.patiently(lambda database: owners.give_up(database, other.writer.owner))
    monkeypatch.undo()
    assert ledger.counts("clocks") == {"open": 1, "settled": 1}
    assert ledger.spent_month("clocks", current_month()) == pytest.approx(0.2)
    ledger_of(opened).release(right)


def test_a_database_that_stays_away_ends_the_work_with_a_remedy_and_what_came_is_sent_by_the_next_run(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=0.5")
    opened, caps = machine(tmp_path, "home"), Caps("away", 1.0)
    ledger, answers = ledger_of(opened), SharedAnswers(opened.writer, opened.reader)
    call, late = ledger.reserve(caps, "case", "prompt", 0.4), ledger.reserve(caps, "case", "prompt", 0.3)
    postgres.crash()
    try:
        answers.put("came-while-away", stored_now("yes", "stop", Usage(10, 0, 0, 1), 5.0), "api")
        ledger.settle(call, 0.1)
        with pytest.raises(StateAway, match=r"LEASTWISE_STATE: .* was away for .*run the same command again") as away:
            ledger.reserve(caps, "case", "prompt", 0.1)
        assert postgres.password not in str(away.value)
        answers.put("came-after", stored_now("no", "stop", Usage(10, 0, 0, 1), 5.0))
        ledger.settle(late, 0.2)
        with pytest.raises(StateAway):
            ledger.reserve(caps, "case", "prompt", 0.1)
    finally:
        postgres.start()
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=30")
    again = machine(tmp_path, "home")
    assert ledger_of(again).spent("away") == pytest.approx(0.3) and ledger_of(again).reserved("away") == 0
    kept = SharedAnswers(again.writer, again.reader).get_many(["came-while-away", "came-after"], "api")
    assert {key: answer.text for key, answer in kept.items()} == {"came-while-away": "yes", "came-after": "no"}
    assert not list((tmp_path / "home" / "unsent").iterdir())


def test_answers_in_postgres_are_those_of_a_file(shared: Postgres, tmp_path: Path) -> None:
    opened = machine(tmp_path, "answers")
    both: list[Any] = [SharedAnswers(opened.writer, opened.reader), ResponseStore(tmp_path / "answers.db")]
    usage = Usage(10, 2, 3, 4)
    for store in both:
        store.put("nul", stored_now("a\x00b é \U0001f600", "stop", usage, 7.0, 0.5), "api at 8")
        store.put("nul", stored_now("another", "stop", usage, 9.0), "api at 8")
        store.put("untimed", stored_now("", "length", None, 3.0, raw="{half", answered_by="gpt-9-2026"))
        store.put_latency("untimed", "self_host", 4.0)
        store.put_latency("untimed", "self_host", 5.0)
    keys = ["nul", "untimed", "none"]
    for place in (None, "api at 8", "self_host"):
        found = [store.get_many(keys, place) for store in both]
        moments = [{key: answer.created_unix_s for key, answer in each.items()} for each in found]
        assert {key: vars(each) | {"created_unix_s": 0} for key, each in found[0].items() if key in moments[0]} == {
            key: vars(each) | {"created_unix_s": 0} for key, each in found[1].items()
        } or place == "api at 8"  # a file takes what is not timed anywhere for timed where calls are paid, as it was
    assert both[0].latencies(keys, "self_host") == both[1].latencies(keys, "self_host") == {"untimed": 4.0}
    assert both[0].get_many([]) == {} and len(both[0]) >= 2


def test_tables_from_before_the_answering_model_was_kept_get_its_column_and_lose_no_answer(
    shared: Postgres, tmp_path: Path
) -> None:
    first = SharedAnswers((opened := machine(tmp_path, "before")).writer, opened.reader)
    first.put("from-before", stored_now("yes", "stop", Usage(10, 0, 0, 1), 5.0))
    first.flush()
    asked(shared, "ALTER TABLE leastwise.answers DROP COLUMN answered_by")
    opened = machine(tmp_path, "after")
    answers = SharedAnswers(opened.writer, opened.reader)
    answers.put("from-after", stored_now("no", "stop", Usage(10, 0, 0, 1), 5.0, answered_by="gpt-9-2026"))
    kept = answers.get_many(["from-before", "from-after"])
    assert {key: each.answered_by for key, each in kept.items()} == {"from-before": "", "from-after": "gpt-9-2026"}


def test_two_machines_take_turns_and_lease_a_climb_once_and_a_dead_ones_lease_goes_over(
    shared: Postgres, tmp_path: Path
) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    assert one.turns.take("a climb of triage:key") is None and one.turns.take("a climb of triage:key") is None
    holder = two.turns.take("a climb of triage:key")
    assert holder is not None and f"process {os.getpid()}" in holder.in_words and holder.heard_s_ago < 60
    one.turns.give_back("a climb of triage:key")
    assert two.turns.take("a climb of triage:key") is None
    asked(shared, AN_HOUR_AGO, two.writer.owner.name)
    assert one.turns.take("a climb of triage:key") is None
    with pytest.raises(LeaseLost, match="another has gone on"):  # a laptop that slept does not go on beside it
        ledger_of(two).reserve(Caps("c"), "case", "prompt", 0.1)

    async def both() -> list[str]:
        order: list[str] = []

        def work(turns: SharedTurns, name: str) -> None:
            with turns.turn("registry-triage"):
                order.append(f"{name} begins")
                time.sleep(0.1)
                order.append(f"{name} ends")

        await asyncio.gather(*(asyncio.to_thread(work, each.turns, name) for each, name in ((one, "a"), (one, "b"))))
        return order

    order = asyncio.run(both())
    assert [each.split()[1] for each in order] == ["begins", "ends"] * 2


def test_the_home_of_a_worker_may_be_deleted_in_the_middle(shared: Postgres, tmp_path: Path) -> None:
    opened = machine(tmp_path, "worker")
    ledger = ledger_of(opened)
    call = ledger.reserve(Caps("deleted", 1.0), "case", "prompt", 0.4)
    shutil.rmtree(tmp_path / "worker")
    other = machine(tmp_path, "other")
    other.reader.patiently(lambda database: owners.give_up(database, other.writer.owner))
    assert ledger_of(other).counts("deleted") == {"open": 1}, "its sign of life is gone, and it lives"
    ledger.settle(call, 0.1)
    assert ledger.spent("deleted") == 0.1


def test_two_that_open_a_new_database_at_once_make_its_tables_once_and_a_later_version_is_refused(
    shared: Postgres, tmp_path: Path
) -> None:
    asked(shared, "DROP SCHEMA IF EXISTS leastwise CASCADE")
    processes = [worker(tmp_path, name, 3, 1.0) for name in ("first", "second")]
    assert [each.wait() for each in processes] == [0, 0], [each.communicate()[1] for each in processes]
    assert asked(shared, "SELECT version FROM leastwise.version") == [(1,)]
    asked(shared, "UPDATE leastwise.version SET version = 99")
    with pytest.raises(BadInput, match=r"version 99.*install the version"):
        machine(tmp_path, "late")
    asked(shared, "UPDATE leastwise.version SET version = 1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://u:geheim123@h/d", "mysql is no database"),
        ("postgresql://u:geheim123@h", "names no database"),
        ("postgresql:///d", "names no host"),
        ("postgresql://u:geheim123@h:port/d", "the port is no number"),
        ("postgresql://u:geheim123@h/d?colour=red", "colour is no option"),
        ("postgresql://u:geheim123@h/d?patience_s=600", "seconds from 0.5 to 90"),
        ("geheim123", "is no database"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_to_write_and_without_its_password(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        addresses.parsed(text)
    assert "LEASTWISE_STATE" in str(refused.value) and "geheim123" not in str(refused.value)


def test_a_password_that_is_wrong_is_bad_input_and_shown_nowhere(shared: Postgres, tmp_path: Path) -> None:
    where = addresses.parsed(f"postgresql://leastwise:g%2Fheim%40123@127.0.0.1:{shared.port}/state")
    with pytest.raises(BadInput, match="does not take this user and password"):
        Session(where).patiently(lambda database: None)
    assert "heim" not in repr(where) + redacted("so g/heim@123 was written, and g%2Fheim%40123")
