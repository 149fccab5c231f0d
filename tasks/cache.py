"""Stage 3: the parent with provider prompt caching and an exact response cache, judged on sampled traffic."""

from __future__ import annotations

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.run_id import RunId
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace


@task(name="evaluate")
def evaluate_cache(climb: RunId) -> RunId:
    """Measure the stage and log it."""
    work = open_workspace(climb)
    return show_result(work, evaluate_stage(work, "cache", [cache_candidate(work)]))


def cache_candidate(work: Workspace) -> Candidate:
    """The parent behind both caches."""
    parent, caching = work.need_parent(), work.use_case.caching
    policy = CachePolicy(provider=True, exact=True, ttl_s=caching.ttl_s, most_bytes=round(caching.most_mb * 1e6))
    return parent.model_copy(update={"stage": "cache", "cache": policy, "parent": parent.key})
