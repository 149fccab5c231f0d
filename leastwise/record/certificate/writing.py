"""A climb's certificate from its record: every stage as it was logged, beside what it rests on and until when it holds.

It measures and judges nothing new; what is avoided is handed in as it was estimated.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, cast

from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import ClimbEnding
from leastwise.models.catalogue import Catalogue
from leastwise.record.certificate.contents import (
    Avoided,
    Certificate,
    Entry,
    Figure,
    PricedModel,
    Prices,
    Table,
    Wanted,
    Winner,
    running_of,
    saving_of,
)
from leastwise.record.climb_run import ClimbRun
from leastwise.record.stage_run import StageRun
from leastwise.redaction import without_secrets
from leastwise.rows.question import Question
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.model import Model

PACKAGES = ("leastwise", "mlflow", "numpy", "scipy", "pydantic")  # whose arithmetic or format a certificate rests on
ROOM = Path(__file__).resolve().parents[2]
ENDS_EARLIER = (
    "a table under data has another SHA-256",
    "a price under prices is another, or a model has another revision or is retired",
    "task, requirements or traffic of the use case change",
    "drift finds inputs unlike the rows it was judged on",
)


def certificate_of(
    run: ClimbRun,
    question: Question,
    catalogue: Catalogue,
    ending: ClimbEnding,
    avoided: Sequence[Avoided],
    alpha_drawn: float,
    now: datetime,
) -> Certificate:
    """What a climb that ended at a stage, or at the reference, has found."""
    use_case = question.use_case
    entries = _ladder(run, use_case)
    won = next(entry for entry in entries if entry.record.stage == ending.outcome)
    won_by = None if ending.outcome == "reference" else run.stage(won.run_id).candidate()
    days = use_case.certificate_days
    return Certificate(
        wanted=_wanted(use_case),
        mlflow_run_id=run.id,
        outcome=cast("Stage | Literal['reference']", ending.outcome),
        sure=ending.sure,
        reason=ending.reason,
        winner=_winner(won_by) if won_by else None,
        ladder=entries,
        gate_hash=question.gate_hash,
        alpha_drawn=alpha_drawn,
        confirmed=cast("Literal['yes', 'no', 'not measured']", ending.confirmed),
        test=_tested(run.again().figures) if ending.confirmed != "not measured" else {},
        data=tuple(Table(name=each.name, sha256=each.sha256, rows=each.rows) for each in _tables(question)),
        prices=prices_of(catalogue, won_by),
        saving=saving_of(avoided),
        running=running_of(won.record, use_case.traffic.requests_per_month),
        usd_spent=ending.usd_spent,
        measured_at=datetime.fromtimestamp(run.stage(won.run_id).origin.run.info.start_time // 1000, UTC),
        issued_at=now,
        valid_days=days,
        expires_at=now + timedelta(days=days),
        ends_earlier=(*ENDS_EARLIER, *catalogue.retiring(now.date())),
        versions=_versions(),
    )


def _wanted(use_case: UseCase) -> Wanted:
    return Wanted(
        name=use_case.name,
        description=use_case.description,
        task=use_case.task.kind,
        requirements=use_case.requirements,
        alpha=use_case.alpha,
        on_undecided=use_case.on_undecided,
        reference=use_case.reference,
        last_stage=use_case.last_stage,
        population=use_case.data.population,
        unit_by=use_case.data.unit_by,
        requests_per_month=use_case.traffic.requests_per_month,
    )


def _ladder(run: ClimbRun, use_case: UseCase) -> tuple[Entry, ...]:
    """Row 0 and the stages from the foot up; of two records of a stage the later one counts, as in the climb."""
    reference = run.reference_run()
    latest: dict[str, StageRun] = {"reference": reference} if reference else {}
    latest |= {str(stage_run.stage): stage_run for stage_run in run.stage_runs()}
    requirements = use_case.gate_requirements
    in_order = (latest[stage] for stage in ("reference", *LADDER) if stage in latest)
    return tuple(Entry(run_id=each.id, record=each.record(requirements)) for each in in_order)


def _winner(candidate: Candidate) -> Winner:
    return Winner(
        key=candidate.key,
        model=without_secrets(candidate.model),
        revision=candidate.revision,
        venue=candidate.venue,
        weights=candidate.weights.revision if candidate.weights else None,
    )


def _tested(figures: Mapping[str, float]) -> dict[str, Figure]:
    names = [name.removeprefix("test.").removesuffix(".n") for name in figures if name.startswith("test.")]
    return {
        name: Figure(estimate=figures[f"test.{name}"], n=int(figures[f"test.{name}.n"]))
        for name in dict.fromkeys(names)
        if f"test.{name}" in figures and f"test.{name}.n" in figures
    }


def _tables(question: Question) -> Iterable[Table]:
    tables = question.tables
    return [Table(name=name, sha256=sha256, rows=tables.rows(name) or 0) for name, sha256 in tables.hashes.items()]


def prices_of(catalogue: Catalogue, winner: Candidate | None = None) -> Prices:
    """Every price the figures of a use case rest on, that of a winner which a host trained too."""
    hosting = catalogue.use_case.hosting
    own = [catalogue.model(winner.model)] if winner and catalogue.is_tuned(winner.model) else []
    return Prices(book_as_of=catalogue.book.as_of, hosting=hosting, models=tuple(_priced(catalogue, own)))


def _priced(catalogue: Catalogue, own: Sequence[Model]) -> Iterable[PricedModel]:
    models, managed = catalogue.use_case.models, catalogue.use_case.training.managed
    trained = [models.base, managed.base if managed else None]
    named = (*models.candidates, *own, *filter(None, [*trained, catalogue.use_case.judge_model]))
    for model in {each.uri: each for each in named}.values():
        try:
            price, revision = catalogue.price(model.uri), catalogue.asked_revision(model)
        except BadInput:  # a base that no stage came to need: what is needed was checked before the climb
            continue
        dated = price if price.as_of or price.illustrative else price.model_copy(update={"as_of": catalogue.book.as_of})
        yield PricedModel(uri=model.uri, venue=model.venue, revision=revision, price=dated)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "leastwise.source": _source()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from its repository, of which the hash of the source tells
            continue
    return versions


@lru_cache(maxsize=1)
def _source() -> str:
    """A hash of the library as it ran."""
    files = sorted(ROOM.rglob("*.py"))
    return content_key(*(f"{file.relative_to(ROOM)}:{file.read_text(encoding='utf-8')}" for file in files))
