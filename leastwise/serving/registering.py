"""Registering a winner: its files go to MLflow, it is loaded from there as anybody would, and must answer as judged.

Until then no version exists; what a kill leaves is an unregistered model, which the next call completes. It moves no
alias.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock

from leastwise.answering.bundle import packing
from leastwise.answering.bundle.contents import Contents, changed_since
from leastwise.answering.served import requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.request import usd_worst
from leastwise.errors import BadInput
from leastwise.evaluating.reference import SAID
from leastwise.ladder.candidate import Candidate
from leastwise.record.published.candidate_files import contents_of, log_whole, save_bundle
from leastwise.record.registry import Registry
from leastwise.record.run import MODEL_ID
from leastwise.record.stage_run import EXAMPLES, StageRun
from leastwise.record.upkeep_run import UpkeepRun
from leastwise.serving import smoke
from leastwise.serving.live_model import TRIES
from leastwise.stores.shared.state import turns

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

JUDGED = ("gate", "traffic")  # the sets whose rows it is asked again


def register(work: Workspace, run: StageRun) -> str:
    """The version of the candidate that a run measured, made where there is none.

    BadInput where it cannot be served, or does not answer as it did when it was judged; BudgetExceeded where asking it
    again may cost more than is left.
    """
    registry = Registry(run.client, work.use_case.name)
    if known := registry.version_of(run):
        return known
    if (origin := run.origin).id != run.id:  # a climb that measured nothing anew registers nothing anew
        return register(work, origin)
    model_id = run.tag(MODEL_ID)
    if not model_id:
        raise BadInput(f"run {run.id}: {_why_none(run)}")
    with turns().turn(f"registering-{work.use_case.name}"):  # two at once would mix the files of one model
        return registry.version_of(run) or _registered(work, run, registry, model_id)


def _registered(work: Workspace, run: StageRun, registry: Registry, model_id: str) -> str:
    candidate = run.candidate()
    with _scratch(work.home / "registering") as scratch:
        packed = Path(scratch, "bundle")
        _check_unchanged(work, run, candidate, packing.pack(work, candidate, packed))
        save_bundle(packed, Path(scratch, "model"))
        log_whole(run.client, model_id, Path(scratch, "model"))
    _check(work, run, candidate, f"models:/{model_id}")
    return registry.register(run)


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    """A folder to pack in, for one at a time; what a kill left of another is gigabytes, and is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        for left in folder.glob("*-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="bundle-") as scratch:
            yield scratch


def _why_none(run: StageRun) -> str:
    if run.stage == "reference":
        return "the reference was only reported (reference: report); climb with reference: stop to have it served"
    return "has logged no candidate; name the run of a stage that was measured"


def _check_unchanged(work: Workspace, run: StageRun, candidate: Candidate, packed: Contents) -> None:
    """BadInput where a file that it would be served with is not the one it was measured with."""
    guards = [each.guard for each in packing.parts_of(candidate) if each.guard and each.guard.examples]
    named = any(guard.examples != work.tables.hashes.get("train") for guard in guards)
    logged = contents_of(run.client, run.tag(MODEL_ID))
    what = "data.train, which its guard goes by" if named else ""
    if logged and not what:
        what = changed_since(Contents.model_validate_json(logged), packed)
    if what:
        raise BadInput(
            f"run {run.id}: {what} changed since it was measured, so what was judged is not what would be served; put "
            "it back as it was, or climb again"
        )


def _check(work: Workspace, run: StageRun, candidate: Candidate, model_uri: str) -> None:
    """BadInput where the model as it was logged does not answer as the run has it."""
    rows = _examples(run)
    rows = None if rows is None else rows[rows["answer"].notna()].drop_duplicates("input").head(smoke.ROWS)
    texts = [] if rows is None else [str(text) for text in rows["input"]]
    logged = [] if rows is None else [str(answer) for answer in rows["answer"]]
    worst = sum(_worst_usd(work, each, texts) for each in packing.parts_of(candidate))
    meter = work.budget.meter(candidate.stage)
    reserved = meter.reserve(worst) if worst else None  # what costs nothing is no call that was paid
    try:
        said = smoke.answers_of(
            model_uri, texts, work.use_case.traffic.concurrency, work.home / "logs" / f"smoke-{candidate.key}.log"
        )
    except BaseException:
        if reserved is not None:
            meter.ledger.settle_at_worst(reserved)  # what it had spent until then is not known
        raise
    if reserved is not None:
        meter.ledger.settle(reserved, sum(each.usd for each in said))
    answers = [each.answer for each in said]
    share = smoke.agreement(work.use_case.task, answers, logged)
    if share < smoke.LEAST_AGREEING:
        raise BadInput(
            f"run {run.id}: the registered model answers {share:.0%} of {len(texts)} gate rows as they were judged "
            f"({smoke.LEAST_AGREEING:.0%} are needed), so what was measured is not what would be served; climb again"
        )
    log.info(f"the registered model answers {share:.0%} of {len(texts)} gate rows as they were judged")


def _examples(run: StageRun) -> pd.DataFrame | None:
    """What was answered when it was judged, gate rows first; a retraining has it in the stage under it."""
    import pandas as pd

    under = [each for each in UpkeepRun(run.client, run.run).stage_runs() if each.is_judged]
    judged = next((each for each in (run, *reversed(under)) if each.origin.has_file(EXAMPLES)), None)
    if judged is None:
        return (
            pd.DataFrame.from_records(cast("list[dict[str, str]]", run.origin.read_json(SAID)))
            if run.origin.has_file(SAID)
            else None
        )
    rows = judged.every_example()
    return rows[rows["set"].isin(JUDGED)].sort_values("set", key=lambda sets: sets.map(JUDGED.index), kind="stable")


def _worst_usd(work: Workspace, part: Candidate, texts: Sequence[str]) -> float:
    """The most that asking a part of a candidate once for each text may cost by its tokens."""
    price = work.catalogue.price_in_venue(part)
    if price is None or not texts or not work.catalogue.is_metered(part) or part.prompt is None:
        return 0.0
    requests = requests_of(work, part, [""] * len(texts), texts)
    return sum(usd_worst(request, price.usd) for request in requests) * TRIES
