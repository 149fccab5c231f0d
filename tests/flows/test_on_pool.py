"""A stage on a pool whose worker is lost, and a climb that is itself started again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import pytest
from botocore.exceptions import EndpointConnectionError
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Pending, Running, State

from flows.running import revival
from flows.steps import on_pool, stages
from leastwise.errors import AtWork
from leastwise.run_id import RunId
from leastwise.stores import s3
from leastwise.stores.caps import BudgetExceeded
from tasks import climb as climbing

LOST, DONE = Crashed(message="Nothing was heard of it"), Completed(message="done")
S3_AWAY = s3.in_words("s3://leastwise/checkpoints", EndpointConnectionError(endpoint_url="http://s3:8333"))
OUTAGE_OF_S3 = Failed(message=f"Flow run encountered an exception: {type(S3_AWAY).__name__}: {S3_AWAY}")
OUTAGE = Failed(message="Flow run encountered an exception: TimeoutError: the shared state at db was away for too long")
BUDGET = Failed(message="Flow run encountered an exception: BudgetExceeded: budget_usd of $1.00 would be passed")


@pytest.fixture(scope="module")
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """Of `fine_tune`; nobody looks after its pool but `ends_as`."""
    monkeypatch.setattr(on_pool, "POLL_S", 0.1)
    monkeypatch.setattr(on_pool, "AGAIN_S", 0.05)
    return client.create_deployment(client.create_flow_from_name("fine_tune"), "fine_tune")


def runs_of(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return client.read_flow_runs(deployment_filter=wanted)


@contextmanager
def ends_as(deployment: UUID, *ends: State) -> Iterator[list[UUID]]:
    """A worker that takes the next run of the deployment and ends it so, one after another."""
    taken: list[UUID] = []
    over = threading.Event()

    def work() -> None:
        with get_client(sync_client=True) as client:
            for end in ends:
                while not (
                    new := [each.id for each in runs_of(client, deployment) if each.id not in taken and _waits(each)]
                ):
                    if over.wait(0.05):
                        return
                taken.append(new[0])
                for state in (Pending(), Running(), end.model_copy()):
                    client.set_flow_run_state(new[0], state)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield taken
    finally:
        over.set()
        worker.join()


def _waits(run: FlowRun) -> bool:
    return bool(run.state and run.state.is_scheduled())


@pytest.mark.parametrize(
    "lost",
    [LOST, OUTAGE, OUTAGE_OF_S3],
    ids=["its worker is lost", "a server was away for too long", "S3 was, as a checkpoint was looked for"],
)
def test_a_stage_that_was_lost_is_started_again_and_the_climb_goes_on(deployment: UUID, lost: State) -> None:
    with ends_as(deployment, lost, DONE) as taken:
        state = on_pool.run_on_pool("fine_tune", RunId(f"climb-{lost.type}"))
    stages.require_completed("fine_tune", state)
    assert len(taken) == len(set(taken)) == 2


def test_what_failed_by_itself_is_not_started_again(deployment: UUID) -> None:
    with ends_as(deployment, BUDGET, DONE) as taken:
        state = on_pool.run_on_pool("fine_tune", RunId("at-its-cap"))
    with pytest.raises(stages.BudgetReachedOnPool, match="budget_usd of"):
        stages.require_completed("fine_tune", state)
    assert len(taken) == 1


def test_what_loses_every_worker_it_comes_to_is_given_up(deployment: UUID) -> None:
    with ends_as(deployment, *[LOST] * 9) as taken:
        state = on_pool.run_on_pool("fine_tune", RunId("always-lost"))
    assert len(taken) == on_pool.MOST_STARTS
    with pytest.raises(RuntimeError, match=r"fine_tune stage ended as Crashed: Nothing was heard"):
        stages.require_completed("fine_tune", state)


@pytest.fixture
def confirming(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """The deployment `confirm`, on pools, for a winner whose engine this machine lacks."""
    monkeypatch.setattr(on_pool, "POLL_S", 0.1)
    monkeypatch.setenv("LEASTWISE_POOLS", "1")
    monkeypatch.setattr(climbing, "lacks_engine", lambda climb, outcome: True)
    return client.create_deployment(client.create_flow_from_name("confirm"), "confirm")


@pytest.mark.parametrize("said", ["yes", "no", climbing.NOT_MEASURED])
def test_a_winner_whose_engine_this_machine_lacks_is_confirmed_on_the_pool_that_measured_it(
    client: SyncPrefectClient, confirming: UUID, said: str
) -> None:
    climb = RunId(f"won-and-{said}")
    with ends_as(confirming, LOST, Completed(message=said)) as taken:
        assert stages._confirmed(climb, "fine_tune") == said, "a worker that is lost is no answer"
    run = client.read_flow_run(taken[-1])
    assert run.parameters == {"climb": climb, "outcome": "fine_tune"} and len(taken) == 2


def test_a_cap_that_is_reached_while_a_winner_is_confirmed_elsewhere_is_that_cap_and_a_fault_says_which(
    confirming: UUID,
) -> None:
    with ends_as(confirming, BUDGET), pytest.raises(BudgetExceeded, match="budget_usd of"):
        stages._confirmed(RunId("too-dear"), "fine_tune")
    none = Failed(message="Flow run encountered an exception: BadInput: LEASTWISE_VLLM names none on this machine")
    with ends_as(confirming, none), pytest.raises(RuntimeError, match=r"confirm .*Failed.*LEASTWISE_VLLM names none"):
        stages._confirmed(RunId("no-engine-there"), "fine_tune")


def test_a_winner_of_a_stage_that_runs_here_or_without_pools_is_confirmed_here(
    confirming: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[str] = []
    monkeypatch.setattr(climbing, "confirm", lambda climb, outcome: here.append(outcome) or "yes")
    assert stages._confirmed(RunId("c"), "prompt") == "yes"
    monkeypatch.setattr(climbing, "lacks_engine", lambda climb, outcome: False)
    assert stages._confirmed(RunId("c"), "distill") == "yes"
    monkeypatch.setattr(climbing, "lacks_engine", lambda climb, outcome: True)
    monkeypatch.delenv("LEASTWISE_POOLS")
    assert stages._confirmed(RunId("c"), "fine_tune") == "yes"
    assert here == ["prompt", "distill", "fine_tune"]


def test_a_climb_that_was_lost_awaits_the_stage_it_left_running_and_starts_no_second(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    climb = RunId("left-behind")
    left = on_pool._started("fine_tune", climb, f"fine_tune of climb {climb}")
    other = on_pool._started("fine_tune", RunId("another"), "fine_tune of climb another")
    client.set_flow_run_state(left.id, Pending())
    client.set_flow_run_state(left.id, Running())
    ends = threading.Timer(0.5, lambda: client.set_flow_run_state(left.id, DONE.model_copy()))
    ends.start()
    state = on_pool.run_on_pool("fine_tune", climb)
    ends.join()
    mine = [each for each in runs_of(client, deployment) if f"fine_tune of climb {climb}" in each.tags]
    assert state and state.is_completed() and [each.id for each in mine] == [left.id]
    client.delete_flow_run(other.id)


def test_a_prefect_server_that_is_away_is_waited_for_and_a_refusal_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_pool, "AGAIN_S", 0.01)
    answers: Iterator[Exception | str] = iter([httpx.ConnectError("refused"), httpx.ReadTimeout("cut"), "there"])
    assert on_pool.patiently(_raising(answers)) == "there"
    with pytest.raises(httpx.ConnectError):
        on_pool.patiently(_raising(iter([httpx.ConnectError("refused")])), within_s=0.0)
    request = httpx.Request("GET", "http://prefect/api")
    refusal = httpx.HTTPStatusError("401", request=request, response=httpx.Response(401, request=request))
    with pytest.raises(httpx.HTTPStatusError):
        on_pool.patiently(_raising(iter([refusal, "there"])))


def _raising(answers: Iterator[Exception | str]) -> Callable[[], str]:
    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def lost(client: SyncPrefectClient, name: str, times: int) -> FlowRun:
    """A run of a deployment that was lost so often, as a worker finds it."""
    deployment = client.create_deployment(client.create_flow_from_name(name), name)
    run = client.create_flow_run_from_deployment(deployment, state=Pending())
    for _ in range(times):
        for state in (Pending(), Running(), Crashed(), AwaitingRetry()):
            client.set_flow_run_state(run.id, state, force=True)
    client.set_flow_run_state(run.id, Pending())
    return client.read_flow_run(run.id)


def opens_after(refusals: int) -> Callable[[str], str]:
    left = iter([True] * refusals)

    def open_run(name: str) -> str:
        if next(left, False):
            raise AtWork("a climb of toy is at work already: process 41 on gpu-2, heard of 12 s ago")
        return name

    return open_run


def test_a_run_that_was_lost_waits_for_who_is_still_at_work_and_any_other_is_refused_at_once(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revival, "AGAIN_S", 0.01)

    @flow(name="waits")
    def waits() -> str:
        return f"{revival.opened(opens_after(3), 'opened')} after {revival.losses()}"

    assert run_flow(waits, flow_run=lost(client, "waits", 1)) == "opened after 1"
    with pytest.raises(AtWork, match="on gpu-2"):
        run_flow(waits, flow_run=lost(client, "waits", 0))
    with pytest.raises(AtWork):
        waits()


def test_a_run_that_is_lost_again_and_again_ends_with_what_to_look_at(client: SyncPrefectClient) -> None:
    opened: list[float] = []

    @flow(name="loses")
    def loses() -> None:
        revival.opened(opened.append, time.time())

    run_flow(loses, flow_run=lost(client, "loses", revival.MOST_LOSSES))
    with pytest.raises(RuntimeError, match=rf"lost {revival.MOST_LOSSES + 1} times.*memory"):
        run_flow(loses, flow_run=lost(client, "loses", revival.MOST_LOSSES + 1))
    assert len(opened) == 1
