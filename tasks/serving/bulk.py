"""A long table answered by what was promoted: looked at before anything is bought, a shard a task, what it came to.

Shards, and who answers them, are in `leastwise.serving.bulk`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from leastwise.answering.answerer import Outage
from leastwise.content import content_key
from leastwise.errors import BadInput, problems_of, refuse
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.published.candidate_files import model_key
from leastwise.record.published.moves import CHAMPION
from leastwise.record.registry import Registry
from leastwise.record.run import CHAMPION_VERSION, STAGE
from leastwise.record.upkeep_run import UpkeepRun, open_upkeep
from leastwise.redaction import without_secrets
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.serving.bulk.answered_shards import Answered, answered
from leastwise.serving.bulk.answering_rows import BulkAnswerer, open_bulk
from leastwise.serving.bulk.settings import BulkSettings
from leastwise.serving.bulk.shards import Plan, Shard, plan_of
from leastwise.stores import storage
from tasks.session.console import say, say_ending
from tasks.session.destinations import destinations
from tasks.session.workspace import open_workspace


@dataclass(frozen=True)
class Opening:
    """A bulk run that is open: its run in MLflow, what is to be answered, and which shards of it are this run's."""

    run: RunId
    plan: Plan
    mine: tuple[Shard, ...]
    settings: BulkSettings


@task(name="open bulk")
def open_bulk_run(use_case: str, source: str, target: str, settings: BulkSettings) -> Opening:
    """Check the whole source and cut it into shards; nothing is asked. BadInput for what cannot be answered or written
    there.
    """
    case, client = load(use_case), connect()
    refuse(problems_of(destinations(case, *([target] if target.startswith("s3://") else []))))
    registry = Registry(client, case.name)
    version = settings.version or registry.aliases().get(CHAMPION, "")
    run_id = registry.run_of(version) if version else None
    if run_id is None:
        raise BadInput(
            f"models:/{case.name}: has no {f'version {version}' if version else 'champion'}; climb, then promote the "
            f"climb's run (python -m flows.promote {case.name} MLFLOW_RUN_ID)"
        )
    where = storage.resolve(target, storage.home().parent)
    plan = plan_of(case, source, where, version, model_key(case.name, version), settings.shard_rows)
    mine = tuple(shard for shard in plan.shards if settings.is_mine(shard.number))
    if settings.budget_usd is not None:
        case = case.model_copy(update={"budget_usd": settings.budget_usd})
    stage = registry.version(version).candidate.stage
    key = content_key("bulk", plan.model_key, plan.source_sha256, str(plan.shard_rows), plan.target, settings.share)
    run = open_upkeep(client, case, "bulk", key, {CHAMPION_VERSION: version, STAGE: stage})
    say(f"bulk: {plan.rows:,} rows in {len(plan.shards):,} shards, {len(plan.missing()):,} of them to answer")
    return Opening(run.id, plan, mine, settings)


@contextmanager
def answering(opening: Opening) -> Iterator[BulkAnswerer | None]:
    """The winner at work, while the block lasts; None where every shard is there."""
    missing = {shard.number for shard in opening.plan.missing()}
    if not any(shard.number in missing for shard in opening.mine):
        yield None
        return
    work, settings = open_workspace(opening.run), opening.settings
    version = opening.plan.version
    with open_bulk(
        work.use_case.name, version, work.answers, work.budget, settings.in_flight, settings.batches
    ) as answerer:
        yield answerer


def _was_lost(task: object, task_run: object, state: State[Answered]) -> bool:
    """Whether a shard is worth another try: a cap or a full disk would be the same again."""
    try:
        state.result()
    except Outage:
        return True
    except Exception:  # whatever else it is
        return False
    return False


@task(name="answer shard", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=_was_lost)
def answer_shard(shard: Shard, plan: Plan, answerer: BulkAnswerer | None) -> Answered:
    """Answer one shard and write it, once."""
    done = answered(plan, shard, answerer)
    say(f"  … shard {shard.number + 1} of {len(plan.shards)}: {done.rows:,} rows, {done.seconds:,.0f} s")
    return done


@task(name="close bulk")
def close_bulk(opening: Opening, done: Sequence[Answered], failures: Sequence[str]) -> UpkeepEnding:
    """Log what the shards of this run came to, and say whether the table is whole."""
    work = open_workspace(opening.run)
    run, plan = UpkeepRun.read(work.run.client, opening.run), opening.plan
    missing, rows = plan.missing(), sum(each.rows for each in done)
    figures = _figures(done)
    scored = f", quality {figures['quality']:.3f} of {int(figures['scored'])}" if "quality" in figures else ""
    reason = f"{rows:,} of {plan.rows:,} rows answered by version {plan.version}{scored}"
    if failures:
        reason = f"{reason}; {len(failures)} shards were not: {failures[0]}"
    elif missing:
        reason = f"{reason}; {len(missing)} of {len(plan.shards)} shards are other runs' and not there yet"
    reason = f"{reason} ({without_secrets(plan.target)})"
    outcome = "error" if failures else "answered"
    return say_ending("bulk", run.end(outcome, reason, work.budget.usd_spent, work.budget.calls, figures))


@task(name="halt bulk")
def halted(opening: Opening, why: str) -> UpkeepEnding:
    """The ending of a bulk run that a cap stopped; what was answered is there, and it can be taken up again."""
    work = open_workspace(opening.run)
    run = UpkeepRun.read(work.run.client, opening.run)
    return say_ending("bulk", run.end("budget", why, work.budget.usd_spent, work.budget.calls))


def _figures(done: Sequence[Answered]) -> dict[str, float]:
    asked = [each for each in done if each.seconds]
    scored = sum(each.scored for each in done)
    figures = {
        "rows": float(sum(each.rows for each in done)),
        "rows.unreadable": float(sum(each.unreadable for each in done)),
        "shards": float(len(done)),
        "usd.answers": sum(each.usd for each in done),
    }
    if asked:
        figures["rows_per_s"] = sum(each.rows for each in asked) / sum(each.seconds for each in asked)
    if scored:
        figures |= {"scored": float(scored), "quality": sum(each.score for each in done) / scored}
    return figures
