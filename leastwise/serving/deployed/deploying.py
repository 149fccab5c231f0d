"""The last act of self_host: what passed is registered, put behind an endpoint, measured under load, and left running
where the use case says so.

It changes no verdict and moves no alias. Whatever is cut off here is taken up by the next call.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from leastwise.answering.workspace import Workspace
from leastwise.record.published.moves import CHAMPION
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.serving.deployed import entries, lookup, measuring, starting
from leastwise.serving.deployed.entries import Entry
from leastwise.serving.deployed.load import Asked
from leastwise.serving.registering import register
from leastwise.serving.settings import EndpointSettings, keys_of, settings_of

ENDS = "`python -m infra.local down` (`make down`) ends it"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployed:
    """Where a candidate answers (`url` empty: nowhere) and how that came, in words."""

    url: str
    words: str


def may_be_deployed(work: Workspace, run: StageRun) -> bool:
    """Whether the gate was sure by what is logged, or a person took what it was not sure of."""
    outcome = run.judged(work.use_case.gate_requirements).verdict.outcome
    return outcome == "PASS" or (outcome == "UNDECIDED" and run.resolution == "pass" and run.is_overridden)


def deploy(work: Workspace, run: StageRun, opening: str = "") -> Deployed:
    """Register the candidate of a stage that passed, put it behind an endpoint and measure that; raises what is in the
    way (BadInput, StartError, BudgetExceeded and whatever a tracking server has to say).

    `opening`: as `starting.Wanted` has it.
    """
    stays, why_not = work.use_case.hosting.endpoint == "process", measuring.why_not(work, run)
    if why_not and not stays:
        return Deployed("", f"No endpoint was started: {why_not}.")
    settings = settings_of(work.use_case.hosting) if stays else EndpointSettings(port=0)
    registry, version = Registry(run.client, work.use_case.name), register(work, run)
    _end_left_over(registry, version)
    if there := lookup.with_version(registry, version):
        starting.wait_for(there, EndpointSettings().start_timeout_s)
        if not why_not and lookup.with_champion(registry) != there:  # cut off before its report: nobody relies on it
            measuring.measure(work, run, _asked(there))
        return Deployed(there.url, f"Version {version} is being served already: {_where(registry, there, version)}.")
    wanted = starting.Wanted(
        name=registry.use_case,
        version=version,
        run_id=registry.run_of(version) or "",
        settings=settings,
        mask=work.use_case.data.mask,
        pin=starting.pinned(registry, version),
        opening=opening,
        stays=stays,
    )
    with _running(work, wanted) as entry:
        if not why_not:
            measuring.measure(work, run, _asked(entry))
    if not stays:
        return Deployed(
            "", f"Version {version} answered behind an endpoint, which was ended: hosting.endpoint is none."
        )
    _end_superseded(registry, entry)
    return Deployed(
        entry.url, f"Version {version} is being served: {_where(registry, entry, version)}{_moved(work, entry)}."
    )


@contextlib.contextmanager
def _running(work: Workspace, wanted: starting.Wanted) -> Iterator[Entry]:
    """An endpoint that answers with its version; after the block it goes on where it `stays`."""
    with measuring.paid(work):
        entry = starting.ensure(wanted).entry
        try:
            starting.wait_for(entry, wanted.settings.start_timeout_s)
            yield entry
        finally:
            if not wanted.stays:
                entries.end(entry)


def _asked(entry: Entry) -> Asked:
    return Asked(entry.url, entry.name, entry.load_key, next(iter(keys_of(EndpointSettings())), ""))


def _end_left_over(registry: Registry, version: str) -> None:
    """End an endpoint that was started only to be measured, by whoever was killed then."""
    left = entries.of(registry.use_case, version)
    if left and not left.stays:
        entries.end(left)


def _end_superseded(registry: Registry, entry: Entry) -> None:
    """End those that an earlier climb left for a version which nobody promoted."""
    champion = registry.aliases().get(CHAMPION, "")
    for each in lookup.of_registry(registry):
        if each.version not in (entry.version, champion) and lookup.is_pinned(registry, each):
            log.info(f"self_host: the endpoint of version {each.version} at {each.url} is ended: nobody promoted it")
            entries.end(each)


def _where(registry: Registry, entry: Entry, version: str) -> str:
    served = entry.serves().get(CHAMPION, version)
    now = "" if served == version else f" (with version {served}, to which the champion was moved)"
    follows = "once that is moved" if lookup.is_pinned(registry, entry) else "wherever that is moved"
    return f"{entry.url}/v1{now}; it follows the champion {follows}; {ENDS}"


def _moved(work: Workspace, entry: Entry) -> str:
    wanted = work.use_case.hosting.endpoint_port
    return f"; port {wanted} was taken" if wanted not in (0, entry.port) else ""
