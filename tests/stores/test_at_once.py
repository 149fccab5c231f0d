"""Two machines at once on one state: promotions follow each other, alpha is drawn once, one of them climbs; a batch is
bought once, whoever collects it.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints import batch_jobs
from leastwise.endpoints.batches import ask_in_batch
from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.shared import address as addresses
from leastwise.stores.shared import state
from leastwise.stores.shared.answers import SharedAnswers
from leastwise.stores.shared.connection import StateAway
from leastwise.stores.shared.jobs import Job, JobFile, SharedJobs
from leastwise.stores.shared.ledger import SharedLedger
from leastwise.stores.shared.turns import SharedTurns, TurnLost
from leastwise.stores.shared.writer import Writer
from leastwise.use_case.price import Usage
from tests.endpoints.test_batches import BatchServer, half_price, request, running
from tests.servers.postgres_server import Postgres, postgres_server
from tests.stores.at_once import Machines, climb, draw, gate_rows, promote, registered
from tests.toys import use_case

CASE = use_case({"quality": (0.8, 0.1)})


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres_server(tmp_path_factory.mktemp("postgres"), "state") as server:
        yield server


@pytest.fixture
def machines(
    postgres: Postgres, tmp_path: Path, empty_tracking: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    """Machines that share a state and a tracking store; this process is one of them."""
    shutil.copy(empty_tracking, tmp_path / "mlflow.db")
    environment = {
        "LEASTWISE_STATE": f"{postgres.uri}?patience_s=20",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(tmp_path / "files"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "here"))
    return Machines(tmp_path, environment)


def start_again(postgres: Postgres) -> None:
    """It refuses to start while what it had started before lives on for a moment."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        postgres.start()
        assert postgres.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            postgres.process.wait(1.0)
            continue
        return
    raise AssertionError(postgres.log.read_text(errors="replace")[-2000:])


def test_two_machines_that_promote_at_once_follow_each_other_and_the_log_is_one_chain(machines: Machines) -> None:
    versions = [registered("raced", model, CASE) for model in "abcd"]
    machines.at_once(
        (promote, ("raced", [versions[0], versions[1]] * 3, "one")),
        (promote, ("raced", [versions[2], versions[3]] * 3, "other")),
    )
    registry = Registry(connect(), "raced")
    log = registry.log()
    assert [move.number for move in log] == list(range(1, 13)) and all(move.finished for move in log)
    assert [move.before for move in log] == ["", *(move.after for move in log[:-1])], "each replaces the one before"
    champion = registry.champion()
    assert champion and (champion.version, registry.predecessor()) == (log[-1].after, log[-2].after)


def test_two_machines_that_register_one_run_at_once_make_one_version(machines: Machines) -> None:
    version = registered("once", "a", CASE)
    run_id = connect().get_model_version("once", version).run_id
    connect().delete_model_version("once", version)
    said = machines.at_once((_register, ("once", run_id)), (_register, ("once", run_id)))
    assert len(set(said)) == 1 and len(connect().search_model_versions("name = 'once'")) == 1


def _register(name: str, run_id: str) -> str:
    from leastwise.record.stage_run import StageRun

    client = connect()
    return Registry(client, name).register(StageRun.read(client, run_id))


def test_two_machines_that_draw_alpha_at_once_draw_each_share_of_the_rows_once(
    machines: Machines, tmp_path: Path
) -> None:
    gate = gate_rows(tmp_path / "gate.csv")
    one, other = machines.at_once((draw, (gate, ["a", "same", "b"])), (draw, (gate, ["same", "c", "d"])))
    assert one[1] == other[0], "one question has one share"
    shares = sorted({one[0], one[1], one[2], other[1], other[2]}, reverse=True)
    assert shares == [share_of_alpha(0.05, number) for number in range(1, 6)]


def test_of_two_machines_that_open_one_climb_at_once_one_climbs_and_the_other_is_told_who(
    machines: Machines, tmp_path: Path
) -> None:
    gate = gate_rows(tmp_path / "gate.csv")
    said = machines.at_once((climb, (gate,)), (climb, (gate,)))
    (run,) = [each for each in said if " " not in each]
    (refused,) = [each for each in said if " " in each]
    assert "is at work already: process" in refused
    where = connect().get_experiment_by_name("toy").experiment_id
    assert [each.info.run_id for each in connect().search_runs([where])] == [run]


def test_a_turn_that_broke_off_with_the_database_moves_nothing_more_and_the_next_finishes_what_was_begun(
    machines: Machines, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (registered("broken", model, CASE) for model in "abc")
    registry = Registry(connect(), "broken")
    registry.promote(a, "first")
    write = Registry._write

    def cut_off(self: Registry, *arguments: str) -> object:
        written = write(self, *arguments)  # type: ignore[arg-type]
        postgres.crash()
        start_again(postgres)
        machines.at_once((promote, ("broken", [c], "other")))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "_write", cut_off)
        with pytest.raises(TurnLost, match=r"registry-broken: .* broke off .* run the same command again"):
            registry.promote(b, "better")
    assert [(move.before, move.after) for move in registry.log()] == [("", a), (a, b), (b, c)]
    assert registry.aliases() == {"champion": c, "predecessor": b}


def test_the_server_lets_go_of_a_machine_that_is_cut_off_within_half_a_minute(
    machines: Machines, tmp_path: Path
) -> None:
    where = addresses.address()
    assert where is not None
    opened = state._open(where, tmp_path / "cut off")
    assert isinstance(opened.turns, SharedTurns)
    names = ("idle", "interval", "count")
    told = [
        opened.reader.patiently(lambda database, name=name: database.execute(f"SHOW tcp_keepalives_{name}".encode()))
        for name in names
    ]
    idle, interval, count = (int(each.fetchall()[0][0]) for each in told)
    assert idle + interval * count <= 30


# -- batch jobs, which are paid whether or not anybody fetches them ---------------------------------------------------


def buyer(folder: Path, climb_id: str = "c") -> dict[str, Any]:
    """What a machine with this state directory buys batches with."""
    where = addresses.address()
    assert where is not None
    opened = state._open(where, folder)
    answers, ledger = SharedAnswers(opened.writer, opened.reader), SharedLedger(opened.writer, opened.reader)
    meter = Meter(ledger, Caps(climb_id, 1.0), "triage", "distill")
    jobs = SharedJobs(where.shown, opened.writer, opened.reader, opened.turns, JobFile(folder / "batches.db"))
    return {"store": answers, "price": half_price, "meter": meter, "jobs": jobs, "first_poll_s": 0.02}


def test_a_batch_of_a_machine_that_is_gone_is_collected_by_another_and_not_bought_again(
    machines: Machines, tmp_path: Path
) -> None:
    server, wanted = BatchServer(looks=10_000), [request(f"row {i}") for i in range(3)]
    with running(server) as target:
        with pytest.raises(TimeoutError):
            ask_in_batch(target, wanted, **buyer(tmp_path / "gone"), patience_s=0.1)
        shutil.rmtree(tmp_path / "gone")
        server.looks, other = 1, buyer(tmp_path / "other")
        replies = ask_in_batch(target, [*wanted, request("row 3")], **other)
        assert [each.text for each in replies] == [f"ANSWER:row {i}" for i in range(4)]
        assert sorted(server.asked) == [f"row {i}" for i in range(4)], "three of the first job, one of a second"
        assert other["jobs"].waiting(batch_jobs._name(target)) == []


def test_a_job_that_another_makes_while_this_one_gets_ready_is_waited_for_and_not_made_twice(
    machines: Machines, tmp_path: Path
) -> None:
    server, one, other = BatchServer(looks=6), buyer(tmp_path / "one", "one"), buyer(tmp_path / "other", "other")
    wanted = [request(f"at once {i}") for i in range(3)]
    with running(server) as target, ThreadPoolExecutor(2) as both:
        asked = [both.submit(ask_in_batch, target, wanted, **each) for each in (one, other)]
        replies = [each.result() for each in asked]
    assert sorted(server.asked) == [f"at once {i}" for i in range(3)] and len(server.jobs) == 1
    assert [[each.text for each in all_of] for all_of in replies] == [[f"ANSWER:at once {i}" for i in range(3)]] * 2
    ledger = one["meter"].ledger
    assert ledger.spent("one") + ledger.spent("other") == pytest.approx(3 * half_price(Usage(100, 40, 0, 5)))
    assert ledger.reserved("one") == ledger.reserved("other") == 0


def test_a_job_that_was_made_while_the_database_was_away_is_handed_on_by_the_next_run(
    machines: Machines, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=0.5")
    jobs = buyer(tmp_path / "cut")["jobs"]
    before = JobFile(tmp_path / "cut" / "batches.db")  # of the days before the state was shared
    before.note(Job("old", "target", "{}", ("k",)))
    postgres.crash()
    with pytest.raises(StateAway):
        jobs.note(Job("new", "target", "{}", ("k", "l")))
    start_again(postgres)
    monkeypatch.setenv("LEASTWISE_STATE", f"{postgres.uri}?patience_s=20")
    for _ in range(2):  # told twice, it is one
        assert [each.id for each in buyer(tmp_path / "cut")["jobs"].waiting("target")] == ["new", "old"]
    shutil.rmtree(tmp_path / "cut")
    other = buyer(tmp_path / "other")["jobs"]
    assert [each.keys for each in other.waiting("target")] == [("k", "l"), ("k",)]
    other.note_collected("target", "new")
    assert [each.id for each in other.waiting("target")] == ["old"] and other.waiting("another") == []


def test_a_job_counts_as_collected_only_once_its_answers_are_committed(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, committed = buyer(tmp_path / "mine"), list[int]()
    note = SharedJobs.note_collected

    def killed_after(self: SharedJobs, target: str, job: str) -> None:
        note(self, target, job)
        kept = "SELECT count(*) FROM answers WHERE text = 'ANSWER:held back'"
        committed.extend(self.reader.patiently(lambda database: database.execute(kept)).fetchone() or ())

    monkeypatch.setattr(SharedJobs, "note_collected", killed_after)
    monkeypatch.setattr(Writer, "_write", _slow(Writer._write))
    with running(BatchServer()) as target:
        ask_in_batch(target, [request("held back")], **mine)
    assert committed == [1]


def _slow(write: Callable[..., None]) -> Callable[..., None]:
    def slowly(*arguments: Any, **named: Any) -> None:
        time.sleep(0.2)
        write(*arguments, **named)

    return slowly
