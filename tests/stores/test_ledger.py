"""The budget is hard: whatever processes do and however they die, spent plus reserved never passes a cap."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from shutil import which

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.stores import lease
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.use_case.price import Usage

ROOT = Path(__file__).parents[2]
CAPS = Caps("climb", usd=1.0, usd_per_month=1.5)
MONTH = datetime.now(UTC).strftime("%Y-%m")


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_call_is_counted_at_its_real_price_once(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    call = ledger.reserve(CAPS, "triage", "prompt", 0.4)
    assert (ledger.spent("climb"), ledger.reserved("climb")) == (0.0, 0.4)
    ledger.settle(call, 0.1, Usage(100, 50, 0, 5))
    assert (ledger.spent("climb"), ledger.reserved("climb")) == (0.1, 0.0)
    with pytest.raises(ValueError, match="exactly once"):
        ledger.settle(call, 0.1)


def test_a_call_that_could_pass_the_cap_is_refused_with_the_remedy(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    ledger.reserve(CAPS, "triage", "prompt", 0.7)
    with pytest.raises(BudgetExceeded, match=r"budget_usd of .* raise budget_usd above 1.1") as refused:
        ledger.reserve(CAPS, "triage", "prompt", 0.4)
    assert (refused.value.spent_usd, refused.value.reserved_usd) == (0.0, 0.7)
    ledger.reserve(CAPS, "triage", "prompt", 0.3)  # exactly the cap is allowed


def test_the_month_holds_over_climbs_of_the_same_use_case(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    for climb, usd in (("a", 0.9), ("b", 0.5)):
        ledger.settle(ledger.reserve(Caps(climb, 1.0, 1.5), "triage", "rag", usd), usd)
    assert ledger.spent_month("triage", MONTH) == pytest.approx(1.4)
    with pytest.raises(BudgetExceeded, match="budget_usd_per_month"):
        ledger.reserve(Caps("c", 1.0, 1.5), "triage", "rag", 0.2)
    ledger.reserve(Caps("c", 1.0, 1.5), "another use case", "rag", 0.2)


def test_a_released_reservation_is_room_again_and_an_unknown_outcome_costs_its_worst(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    ledger.release(ledger.reserve(CAPS, "triage", "prompt", 0.9))
    ledger.settle_at_worst(ledger.reserve(CAPS, "triage", "prompt", 0.9))
    assert ledger.spent("climb") == 0.9
    assert ledger.counts("climb") == {"released": 1, "unknown": 1}


def test_a_killed_process_leaves_its_calls_settled_at_their_worst(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from leastwise.stores import lease
from leastwise.stores.caps import Caps
from leastwise.stores.ledger_file import LedgerFile
ledger = LedgerFile(Path(sys.argv[1]))
for _ in range(3):
    ledger.reserve(Caps("climb", 1.0), "triage", "prompt", 0.2)
print("reserved", flush=True)
time.sleep(60)
"""
    path = tmp_path / "ledger.db"
    with child(code, str(path)) as process:
        assert process.stdout is not None and process.stdout.readline() == "reserved\n"
        assert LedgerFile(path).counts("climb") == {"open": 3}, "a living process keeps its reservations"
        os.kill(process.pid, signal.SIGKILL)
    ledger = LedgerFile(path)
    assert ledger.counts("climb") == {"unknown": 3}
    assert (ledger.spent("climb"), ledger.reserved("climb")) == (0.6, 0.0)


def test_several_processes_never_pass_the_cap_together(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from leastwise.stores import lease
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
ledger, made = LedgerFile(Path(sys.argv[1])), 0
try:
    while True:
        ledger.settle(ledger.reserve(Caps("climb", 0.3), "triage", "prompt", 0.001), 0.001)
        made += 1
except BudgetExceeded:
    print(made)
"""
    processes = [child(code, str(tmp_path / "ledger.db")) for _ in range(3)]
    made = [int(process.communicate()[0]) for process in processes]
    # a neighbour's reservation in flight may turn away the last calls, so up to one a process is left over
    assert 298 <= sum(made) <= 300
    assert LedgerFile(tmp_path / "ledger.db").spent("climb") == pytest.approx(sum(made) * 0.001)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1), st.sampled_from("srw")), max_size=30))
def test_whatever_is_reserved_settled_or_released_the_cap_holds(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[float, float, str]]
) -> None:
    with LedgerFile(tmp_path_factory.mktemp("ledger") / "ledger.db") as ledger:
        for worst, share, ending in calls:
            try:
                call = ledger.reserve(CAPS, "triage", "prompt", worst)
            except BudgetExceeded:
                assert ledger.spent("climb") + worst > 1.0 - 1e-8
                continue
            {
                "s": lambda c, w=worst, s=share: ledger.settle(c, w * s),
                "r": ledger.release,
                "w": ledger.settle_at_worst,
            }[ending](call)
            assert ledger.spent("climb") <= 1.0 + 1e-9
            assert ledger.reserved("climb") == 0.0


def test_a_machine_is_paid_for_its_time_within_the_caps_and_is_no_call(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    meter = Meter(ledger, CAPS, "triage", "fine_tune")
    with meter.machine(usd_per_hour=3600.0, usd_worst=0.5):
        assert ledger.reserved("climb") == 0.5
        time.sleep(0.05)
    spent = ledger.spent("climb")
    assert 0.05 <= spent < 0.5
    assert (ledger.spent_by("climb", "fine_tune"), ledger.spent_by("climb", "rag")) == (spent, 0.0)
    assert ledger.counts("climb") == {}
    with pytest.raises(BudgetExceeded, match="budget_usd"), meter.machine(3600.0, usd_worst=1.0):
        pytest.fail("a machine that could pass the cap was started")


def test_a_machine_that_runs_on_is_paid_further_and_ends_where_a_cap_is_reached(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    meter = Meter(ledger, Caps("climb", usd=0.2, usd_per_month=None), "case", "fine_tune")
    with (
        pytest.raises(BudgetExceeded, match="budget_usd"),
        meter.machine(usd_per_hour=3600.0, usd_worst=0.1) as machine,
    ):
        machine.keep_paid()
        assert ledger.reserved("climb") == pytest.approx(0.1)  # time is left: nothing more is reserved
        for _ in range(100):
            time.sleep(0.01)
            machine.keep_paid()
            assert ledger.reserved("climb") <= 0.2
    assert 0.15 < ledger.spent("climb") < 0.3  # up to the cap and the piece of work it was noticed after
    assert ledger.reserved("climb") == 0


def test_a_stage_has_spent_its_calls_and_its_machines(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    meter = Meter(ledger, CAPS, "triage", "self_host")
    ledger.settle(meter.reserve(0.4), 0.25)
    with meter.machine(0.0, usd_worst=0.1):
        pass
    assert ledger.spent_by("climb", "self_host") == 0.25
    assert ledger.counts("climb") == {"settled": 1}


def test_what_was_spent_is_told_by_purpose_for_a_climb_and_a_stage_and_over_time_for_the_use_case(
    tmp_path: Path,
) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    caps, other = Caps("a", 10.0), Caps("b", 10.0)
    for owner, stage, purpose, usd in (
        (caps, "prompt", "evaluation", 0.1),
        (caps, "prompt", "judge", 0.3),
        (caps, "distill", "teacher", 0.2),
        (other, "retrain", "data", 0.5),
    ):
        Meter(ledger, owner, "triage", stage, purpose).pay(usd)  # type: ignore[arg-type]
    with Meter(ledger, caps, "triage", "distill", "training").machine(3600.0, 1.0):
        pass
    ledger.release(Meter(ledger, caps, "triage", "prompt", "serving").reserve(0.4))
    assert list(ledger.spent_for_stage("a", "prompt")) == ["judge", "evaluation"]
    assert set(ledger.spent_for("a")) == {"judge", "teacher", "evaluation", "training"}
    entries = ledger.over_time("triage", time.time() - 3600)
    assert {purpose for _, purpose, _ in entries} == {"evaluation", "judge", "teacher", "data", "training", "serving"}
    assert sum(usd for _, _, usd in entries) == pytest.approx(ledger.spent("a") + ledger.spent("b"))
    assert ledger.over_time("triage", time.time() + 60) == []


def test_buying_labels_is_held_by_the_month_like_everything_else(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    meter = Meter(ledger, Caps("a", None, 1.0), "triage", "retrain", "data")
    meter.pay(0.8)
    with pytest.raises(BudgetExceeded, match="budget_usd_per_month"):
        meter.pay(0.3)
    assert ledger.spent_month("triage", MONTH) == pytest.approx(0.8)


def test_a_ledger_of_an_earlier_version_keeps_its_entries_and_caps(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with LedgerFile(path) as ledger:
        ledger.settle(ledger.reserve(CAPS, "triage", "prompt", 0.4), 0.25)
        for column in ("purpose", "reserved_unix_s"):
            ledger._connection.execute(f"ALTER TABLE calls DROP COLUMN {column}")
    with LedgerFile(path) as ledger:
        assert ledger.spent("climb") == 0.25 and ledger.spent_for("climb") == {"evaluation": 0.25}
        Meter(ledger, CAPS, "triage", "prompt", "judge").pay(0.1)
        assert ledger.spent_for("climb") == {"evaluation": 0.25, "judge": pytest.approx(0.1)}


RESERVES = """
import sys, time
from pathlib import Path
from leastwise.stores.caps import Caps
from leastwise.stores.ledger_file import LedgerFile
ledger = LedgerFile(Path(sys.argv[1]))
call = ledger.reserve(Caps("climb", 1.0), "triage", "prompt", 0.4)
print("reserved", flush=True)
sys.stdin.readline()
ledger.settle(call, 0.1)
print("settled", flush=True)
"""
UNSHARED = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
MOUNTED = 'mkdir -p "$1" && mount --bind "$0" "$1" && exec "${@:2}"'  # the state's folder under another name


@lru_cache(maxsize=1)
def _no_containers() -> str:
    """Why there can be no process and mount namespaces here; empty where there can."""
    if not which("unshare"):
        return "`unshare` (Debian's util-linux) is not installed"
    done = subprocess.run([*UNSHARED, "true"], capture_output=True, text=True)
    return f"this user may not make namespaces: {done.stderr.strip()}" if done.returncode else ""


def in_a_container(path: Path, seen_at: Path | None = None) -> subprocess.Popen[str]:
    """A process that has reserved, in a process namespace of its own; `seen_at`: the folder it finds the ledger in."""
    if why := _no_containers():
        pytest.skip(why)
    words = [sys.executable, "-c", RESERVES, str((seen_at or path.parent) / path.name)]
    mounted = ["bash", "-c", MOUNTED, str(path.parent), str(seen_at)] if seen_at else []
    command = [*UNSHARED, *mounted, *words]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "reserved\n"
    return process


def test_containers_that_share_a_ledger_do_not_settle_each_others_reservations(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with in_a_container(path) as first, in_a_container(path) as second:
        ledger = LedgerFile(path)
        assert ledger.counts("climb") == {"open": 2}
        for each in (first, second):
            assert each.communicate("go on\n", timeout=60)[0] == "settled\n"
    assert ledger.spent("climb") == pytest.approx(0.2) and ledger.reserved("climb") == 0


def test_containers_that_mount_the_ledger_at_other_places_do_not_settle_each_others_reservations(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "ledger.db"
    path.parent.mkdir()
    with in_a_container(path, tmp_path / "a") as first, in_a_container(path, tmp_path / "b") as second:
        with LedgerFile(path) as ledger:
            assert ledger.counts("climb") == {"open": 2}
        assert not list((tmp_path / "a").iterdir()), "it is mounted in the container alone"
        second.kill()  # `unshare` takes all of it with it
        second.wait(60)
        assert first.communicate("go on\n", timeout=60)[0] == "settled\n"
    until = time.monotonic() + 10  # the container's processes end after the one that was killed
    while LedgerFile(path).counts("climb") != {"settled": 1, "unknown": 1}:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert LedgerFile(path).spent("climb") == pytest.approx(0.5)


def test_a_container_that_is_killed_leaves_its_reservation_settled_at_its_worst_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with in_a_container(path) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in reversed(family):
            each.kill()
    psutil.wait_procs(family, 10)
    assert LedgerFile(path).counts("climb") == {"unknown": 1}


def test_a_sign_of_life_from_another_kernel_holds_until_it_was_not_renewed_for_the_stated_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with LedgerFile(path) as ledger:
        ledger.reserve(CAPS, "triage", "prompt", 0.4)
        about = {"owner": "b" * 16, "machine": "elsewhere", "process": os.getpid(), "kernel": "another"}
        sign = tmp_path / "leases" / about["owner"]  # type: ignore[operator]
        sign.write_text(json.dumps(about))
        ledger._connection.execute("UPDATE calls SET owner = ?", (about["owner"],))
        assert LedgerFile(path).counts("climb") == {"open": 1}
        an_age_ago = time.time() - lease.STALE_S - 1
        os.utime(sign, (an_age_ago, an_age_ago))
        assert LedgerFile(path).counts("climb") == {"unknown": 1}


def test_who_was_given_up_for_dead_and_comes_back_books_what_its_call_really_cost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with LedgerFile(path) as ledger:
        call, released = ledger.reserve(CAPS, "triage", "prompt", 0.4), ledger.reserve(CAPS, "triage", "prompt", 0.2)
        ledger._connection.execute("UPDATE calls SET owner = 'slept for an hour'")
        assert LedgerFile(path).spent("climb") == pytest.approx(0.6)
        ledger.settle(call, 0.1)
        ledger.release(released)
        assert (ledger.spent("climb"), ledger.reserved("climb")) == (0.1, 0.0)
        with pytest.raises(ValueError, match="exactly once"):
            ledger.settle(call, 0.1)


def test_a_call_that_cost_more_than_was_reserved_is_booked_at_what_it_cost_and_the_next_one_is_refused(
    tmp_path: Path,
) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    ledger.settle(ledger.reserve(CAPS, "triage", "prompt", 0.1), 1.2)
    assert (ledger.spent("climb"), ledger.spent_month("triage", MONTH)) == (1.2, 1.2)
    for worst in (0.0, 0.1):
        with pytest.raises(BudgetExceeded, match="budget_usd of"):
            ledger.reserve(CAPS, "triage", "prompt", worst)


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -0.1])
def test_a_price_that_is_none_is_not_booked_and_the_reservation_stays(tmp_path: Path, usd: float) -> None:
    ledger = LedgerFile(tmp_path / "ledger.db")
    call = ledger.reserve(CAPS, "triage", "prompt", 0.1)
    with pytest.raises(ValueError, match="usd_actual"):
        ledger.settle(call, usd)
    assert ledger.counts("climb") == {"open": 1}


def test_what_was_open_in_a_ledger_that_counted_process_ids_is_settled_at_its_worst(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with LedgerFile(path) as ledger:
        ledger.reserve(CAPS, "triage", "prompt", 0.4)
        for line in (
            "DROP INDEX open_calls_of",
            "ALTER TABLE calls DROP COLUMN owner",
            "ALTER TABLE calls ADD COLUMN pid INTEGER NOT NULL DEFAULT 1",
            "ALTER TABLE calls ADD COLUMN pid_started REAL NOT NULL DEFAULT 1",
            "CREATE INDEX open_calls ON calls (pid) WHERE state = 'open'",
        ):
            ledger._connection.execute(line)
    with LedgerFile(path) as ledger:
        assert (ledger.spent("climb"), ledger.counts("climb")) == (0.4, {"unknown": 1})
        ledger.settle(ledger.reserve(CAPS, "triage", "prompt", 0.4), 0.1)
