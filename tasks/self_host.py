"""Stage 7: the best candidate's open weights behind the user's own endpoint."""

from __future__ import annotations

import logging
from dataclasses import replace

from prefect import task

from leastwise.answering.answerer import Outage
from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate
from leastwise.record.run import ENGINE
from leastwise.run_id import RunId
from leastwise.serving.deployed.deploying import may_be_deployed
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace

log = logging.getLogger("leastwise.tasks.self_host")


def measured_already(climb: RunId) -> RunId | None:
    """The stage's run, where a kill came after it had passed and before its endpoint was seen to; else None."""
    runs = [run for run in open_workspace(climb).run.stage_runs() if run.stage == "self_host"]
    passed = [run for run in runs if run.verdict == "PASS" or (run.resolution == "pass" and run.is_overridden)]
    return passed[-1].id if passed else None


@task(name="smoke test")
def smoke_test(climb: RunId) -> None:
    """Serve the candidate that would be self-hosted and ask it one gate row before it is measured."""
    work = open_workspace(climb)
    if work.use_case.hosting.endpoint == "cluster":
        return  # it is asked there, once it is there
    candidate = self_host_candidate(work)
    row = work.question.gate.rows.head(1)
    with open_answerer(work, candidate) as answerer:
        answer = answerer.answer(row)[0]
        took = [ms for ms in answerer.timed(row, [answer]) if ms is not None]  # over the wire, though it is stored
    if answer.text is None or not took:
        raise Outage(f"the endpoint of {candidate.stage} gave no answer: {answer.error or 'it was lost'}")
    log.info(f"smoke test: the endpoint answers {answer.text!r} in {took[0]:.0f} ms")


@task(name="evaluate")
def evaluate_self_host(climb: RunId) -> RunId:
    """Measure the stage and log it; in a cluster, what did not pass there is taken away."""
    work = open_workspace(climb)
    if work.use_case.hosting.endpoint != "cluster":
        return show_result(work, evaluate_stage(work, "self_host", [self_host_candidate(work)]))
    from leastwise.serving.cluster.place import ClusterPlace

    place, candidate = ClusterPlace(work), self_host_candidate(work)
    work, stays = replace(work, place=place), False
    try:
        done = evaluate_stage(work, "self_host", [candidate])
        done.run.write(
            tags={ENGINE: f"a pod in the cluster ({', '.join(place.name[1:])}): hosting.endpoint is cluster"}
        )
        stays = may_be_deployed(work, done.run.again())
    finally:
        if not stays:
            place.take_away(candidate)
    return show_result(work, done)


def self_host_candidate(work: Workspace) -> Candidate:
    """The parent at whole machines a month."""
    parent = work.need_parent()
    return parent.model_copy(update={"stage": "self_host", "venue": "self_host", "parent": parent.key})
