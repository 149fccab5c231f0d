"""A worker that is lost: what the Prefect server does by itself, as infra/automations.yaml has it."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Crashed, Pending, Running

from infra import deployments
from leastwise.stores.shipped import ROOT

PREFECT = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
DECLARED = yaml.safe_load(deployments.AUTOMATIONS.read_text())
SILENT_S = next(each["trigger"]["within"] for each in DECLARED["automations"] if "not heard of" in each["name"])
TRIES, WITHIN_S, POLL_S = 4, 12.0, 0.2


@pytest.fixture(scope="module")
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    """A server with every deployment of prefect.yaml, and the automations applied twice."""
    with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
        patch.setenv("PREFECT_API_URL", prefect_api)
        made = [client.create_deployment(client.create_flow_from_name(each["name"]), each["name"]) for each in PREFECT]
        assert deployments.make_automations() == [each["name"] for each in DECLARED["automations"]]
        before = [client.read_automations_by_name(each["name"]) for each in DECLARED["automations"]]
        assert deployments.make_automations() == []
        # An update would make triggers anew, and forget whom they had heard of.
        assert before == [client.read_automations_by_name(each["name"]) for each in DECLARED["automations"]]
        yield client
        for each in DECLARED["automations"]:
            client.delete_automation(client.read_automations_by_name(each["name"])[0].id)
        for each in made:
            client._client.delete(f"/deployments/{each}")


def running(client: SyncPrefectClient, name: str) -> UUID:
    deployment = client.read_deployment_by_name(f"{name}/{name}")
    run = client.create_flow_run_from_deployment(deployment.id, state=Pending())
    client.set_flow_run_state(run.id, Running())
    return run.id


def heard(client: SyncPrefectClient, run: UUID, s_ago: float) -> None:
    """A sign of life of a run's process, as Prefect's engine emits it."""
    flow = {"prefect.resource.id": f"prefect.flow.{client.read_flow_run(run).flow_id}", "prefect.resource.role": "flow"}
    emit_event(
        "prefect.flow-run.heartbeat",
        {"prefect.resource.id": f"prefect.flow-run.{run}"},
        occurred=datetime.now(UTC) - timedelta(seconds=s_ago),
        related=[flow],
    )
    EventsWorker.instance().wait_until_empty()
    (silence,) = client.read_automations_by_name(DECLARED["automations"][0]["name"])
    client.pause_automation(silence.id)  # Prefect looks at one that was switched on at once, else after its 150 s
    client.resume_automation(silence.id)


def names(client: SyncPrefectClient, run: UUID) -> list[str]:
    """The names of its states in order; one that was set twice in a row counts once."""
    states = sorted(client.read_flow_run_states(run), key=lambda each: each.timestamp)
    return [str(each.name) for at, each in enumerate(states) if not at or states[at - 1].name != each.name]


def states_after(
    client: SyncPrefectClient, name: str, happens: Callable[[UUID], object], wanted: list[str]
) -> list[str]:
    """The states of a run to which something happens. A new run each time it is tried: on SQLite a server under load
    may lose an event to a locked table, and what follows it with it, as Prefect has it.
    """
    found: list[str] = []
    for _ in range(TRIES):
        run = running(client, name)
        happens(run)
        until = time.monotonic() + WITHIN_S
        while (found := names(client, run)) != wanted and time.monotonic() < until:
            time.sleep(POLL_S)
        if found == wanted:
            break
    return found


def test_a_climb_that_is_not_heard_of_is_started_again_a_stage_is_left_to_its_climb_and_who_is_heard_of_is_let_alone(
    client: SyncPrefectClient,
) -> None:
    heard_of, done = running(client, "retrain"), running(client, "drift")
    heard(client, heard_of, SILENT_S - 60)
    client.set_flow_run_state(done, Completed())
    heard(client, done, SILENT_S + 10)
    crashed, again = ["Pending", "Running", "Crashed"], ["Pending", "Running", "Crashed", "AwaitingRetry"]
    stages: list[UUID] = []

    def silent(run: UUID) -> None:
        stages.append(run)
        heard(client, run, SILENT_S + 10)

    assert states_after(client, "fine_tune", silent, crashed) == crashed
    assert states_after(client, "customize", lambda run: heard(client, run, SILENT_S + 10), again) == again
    assert "Nothing was heard of it" in said(client, stages[-1]) and names(client, stages[-1]) == crashed
    assert [names(client, each)[-1] for each in (heard_of, done)] == ["Running", "Completed"]


def said(client: SyncPrefectClient, run: UUID) -> str:
    state = client.read_flow_run(run).state
    return (state and state.message) or ""


def test_what_must_not_happen_twice_is_not_started_again_when_it_crashes(client: SyncPrefectClient) -> None:
    once = [running(client, each) for each in ("rollback", "promote", "serve")]
    for run in once:
        client.set_flow_run_state(run, Crashed())
    again = ["Pending", "Running", "Crashed", "AwaitingRetry"]
    assert states_after(client, "gate", lambda run: client.set_flow_run_state(run, Crashed()), again) == again
    assert {names(client, run)[-1] for run in once} == {"Crashed"}


def test_an_automation_that_somebody_switched_off_stays_off(client: SyncPrefectClient) -> None:
    name = DECLARED["automations"][-1]["name"]
    (there,) = client.read_automations_by_name(name)
    client.pause_automation(there.id)
    assert deployments.make_automations() == []
    (again,) = client.read_automations_by_name(name)
    client.resume_automation(there.id)
    assert (again.id, again.enabled) == (there.id, False)


@pytest.mark.parametrize("deployment", PREFECT, ids=lambda each: str(each["name"]))
def test_every_run_says_more_often_that_it_lives_than_silence_is_taken_for_a_loss(deployment: dict[str, Any]) -> None:
    environment = deployment["work_pool"]["job_variables"]["env"]
    assert int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 4 <= SILENT_S


@pytest.mark.parametrize("name", DECLARED["resuming"])
def test_whatever_is_started_again_waits_for_who_is_at_work(name: str) -> None:
    """`flows.running.revival`: else one that seemed lost, behind a cut cable, would be in the way of its successor."""
    flow = load_flow_from_entrypoint(f"flows.{name}:{name}")
    assert "revival.opened(" in (ROOT / "flows" / f"{name}.py").read_text() and flow.name == name
