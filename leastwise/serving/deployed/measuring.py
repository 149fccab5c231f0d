"""An endpoint of what passed measured under load: whether it is, what that costs, and the report of it.

It starts no endpoint and changes no verdict.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

from leastwise.answering.bundle.packing import parts_of
from leastwise.answering.workspace import Workspace
from leastwise.money.load import repriced
from leastwise.money.machine_cost import hosting_hour_usd
from leastwise.record.deployed.load_report import RATE, log_load
from leastwise.record.review.background import held
from leastwise.record.stage_run import StageRun
from leastwise.redaction import redacted
from leastwise.serving.deployed.load import Asked, carried

log = logging.getLogger(__name__)


def why_not(work: Workspace, run: StageRun) -> str:
    """Why no load report is made; empty where one is."""
    if RATE in run.figures:
        return "what it carries was measured before"
    if any(work.catalogue.is_metered(part) for part in parts_of(run.candidate())):
        return "it is not measured under load, for that would pay for every call"
    return "" if work.use_case.hosting.load_concurrency else "hosting.load_concurrency is 0"


def paid(work: Workspace) -> AbstractContextManager[object]:
    """An own machine is paid by the hour while it is measured."""
    usd = hosting_hour_usd(work.use_case)
    return work.budget.meter("self_host", "serving").machine(usd, usd) if usd else nullcontext()


def measure(work: Workspace, run: StageRun, asked: Asked) -> None:
    """Log what the endpoint carries; what cannot be measured is said, and the endpoint stays."""
    try:
        _measure(work, run, asked)
    except Exception as error:
        why = redacted(" ".join(str(error).split())[:300])
        log.warning(f"self_host: what the endpoint carries is not known ({type(error).__name__}: {why})")


def _measure(work: Workspace, run: StageRun, asked: Asked) -> None:
    use_case, hosting = work.use_case, work.use_case.hosting
    latency = use_case.requirements.p95_latency_ms
    texts = list(dict.fromkeys(map(str, work.question.gate.rows["text"])))
    repeats = not run.candidate().cache.exact  # a response cache would answer what it has seen
    with held():
        done = carried(
            asked, texts, latency.bound if latency else None, hosting.load_concurrency, hosting.load_seconds, repeats
        )
    priced = repriced(use_case, run.figures.get("requests_per_s", 0.0), done.requests_per_s)
    log.info(f"self_host: {log_load(run, done, priced)}")
