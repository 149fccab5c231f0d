"""The last act of self_host: what passed behind an endpoint, and where it answers.

How is said in `leastwise.serving.deployed`. Nothing that goes wrong here changes what was measured.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.record.deployed.load_report import load_of, log_endpoint
from leastwise.record.run import DEPLOYED
from leastwise.record.stage_run import StageRun
from leastwise.redaction import redacted
from leastwise.run_id import RunId
from tasks.session.artifacts import publish_link, publish_markdown
from tasks.session.console import say
from tasks.session.workspace import open_workspace

if TYPE_CHECKING:
    from leastwise.serving.deployed.deploying import Deployed

MOST_WORDS = 600  # of what went wrong


def may_be_deployed(climb: RunId, run_id: RunId) -> bool:
    """Whether the gate was sure of a stage, or a person took what it was not sure of."""
    from leastwise.serving.deployed import deploying

    work = open_workspace(climb)
    return deploying.may_be_deployed(work, work.run.stage(run_id))


def was_cut_off(climb: RunId) -> bool:
    """Whether self_host passed, and a kill came before its endpoint was seen to."""
    run = open_workspace(climb).run.latest("self_host")
    return not run.tag(DEPLOYED) and may_be_deployed(climb, run.id)


@task(name="deploy")
def deploy(climb: RunId, run_id: RunId) -> None:
    """Register the candidate, start its endpoint, measure it under load, and leave it running where the use case says
    so; what is in the way is said and logged.
    """
    from leastwise.serving.deployed import deploying

    work = open_workspace(climb)
    run, name = work.run.stage(run_id), work.use_case.name
    try:
        done = _in_cluster(work, run) if work.use_case.hosting.endpoint == "cluster" else deploying.deploy(work, run)
    except Exception as error:  # whatever it is, the stage was measured and judged
        why = redacted(" ".join(str(error).split()))[:MOST_WORDS]
        done = deploying.Deployed("", f"It is not being served: {type(error).__name__}: {why}")
    log_endpoint(run, done.url, done.words)
    say(f"  … self_host: {done.words}")
    publish_markdown(f"endpoint-{name}", "\n\n".join(filter(None, [load_of(run.again()), done.words])))
    publish_link(f"endpoint-{name}-health", f"{done.url}/health" if done.url else "", f"the endpoint of {name}")


def _in_cluster(work: Workspace, run: StageRun) -> Deployed:
    from leastwise.serving.cluster.place import ClusterPlace
    from leastwise.serving.deployed import measuring
    from leastwise.serving.deployed.deploying import Deployed
    from leastwise.serving.registering import register

    place, candidate, version = ClusterPlace(work), run.candidate(), register(work, run)
    if not measuring.why_not(work, run):
        with measuring.paid(work):
            place.measured_by(partial(measuring.measure, work, run), candidate)
    words = place.put_before_callers(candidate, version)
    return Deployed(place.lead.url, words)
