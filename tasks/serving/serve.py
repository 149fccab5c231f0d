"""Serving the champion of a use case until somebody ends it: what is looked at first, and what is said.

How requests are answered is in `leastwise.serving`.
"""

from __future__ import annotations

from prefect import task

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.ladder.ending import ServeEnding
from leastwise.record.client import connect
from leastwise.record.published.moves import CHAMPION
from leastwise.record.registry import Registry
from leastwise.rows.use_case_file import load
from leastwise.serving.deployed import entries
from leastwise.serving.server import endpoint, until_asked_to_end
from leastwise.serving.settings import EndpointSettings
from tasks.session.console import say
from tasks.session.destinations import destinations


@task(name="serve")
def serve_champion(use_case: str, settings: EndpointSettings) -> ServeEnding:
    """Answer requests with whatever the alias champion names, until SIGTERM or Ctrl-C; what is in flight is answered
    first.
    """
    case = load(use_case)
    kept_at = [settings.traffic_log] if settings.traffic_log.startswith("s3://") else []
    refuse(problems_of(destinations(case, *kept_at)))
    if CHAMPION not in Registry(connect(), case.name).aliases():
        raise BadInput(
            f"models:/{case.name}@champion: there is no champion; climb, then promote the climb's run "
            f"(python -m flows.promote {case.name} MLFLOW_RUN_ID)"
        )
    _check_port(settings)
    with endpoint(case.name, case.data.mask, settings) as running, until_asked_to_end(running):
        say(f"serving {case.name}@champion at {running.url} (/v1/chat/completions, /invocations, /health, /metrics)")
        running.wait()
        say("asked to end: answering what is in flight …")
        served = running.close()
    reason = f"asked to end after {served.requests:,} answered requests"
    return ServeEnding("ended", reason, served.requests, served.usd, served.requests)


def _check_port(settings: EndpointSettings) -> None:
    """BadInput where an endpoint that was left running answers at this port: who asks there would ask another."""
    there = next((each for each in entries.living() if each.port == settings.port), None)
    if there:
        raise BadInput(
            f"settings.port: at {there.url} the endpoint of {there.name} answers that was left running; ask that one "
            "(it follows the champion), end it (`python -m infra.local down`), or name another port"
        )
