"""Advice before spending: reads a use case, its rows and prices, hands them to `leastwise.ladder.advice`, shows and logs it.

It opens no climb, draws on no alpha account, loads no weights and calls no model, so it also works for models that
cannot run here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.evaluating import evaluation
from leastwise.ladder.advice import Advice, advise
from leastwise.ladder.premises import Premises
from leastwise.record import costing, run_record, tracking
from leastwise.rows.use_case_file import Overrides
from leastwise.rows.tables import TABLES, Tables
from leastwise.rows.use_case_file import load
from leastwise.use_case import UseCase
from tasks import console

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARK = {"possible": "possible", "ruled_out": "– ruled out"}


@dataclass(frozen=True)
class AdviceEnding:
    """What was advised; its fields are the JSON line a command prints."""

    outcome: str
    reason: str
    expected_stop: str | None
    usd_spent: float
    calls_paid: int
    mlflow_run_id: str


@task(name="advise")
def give_advice(use_case: str, overrides: Overrides | None = None) -> AdviceEnding:
    """Check a use case and its rows, say what can be said before spending, and log that as one MLflow run."""
    wanted = load(use_case, overrides)
    client = tracking.connect()
    tables = Tables(wanted)
    tables.check()
    work = Workspace.before_climb(client, wanted, tables)
    advice = advise(wanted, known(work))
    if stale := work.book.stale(datetime.now(UTC).date()):
        advice = advice.model_copy(update={"warnings": (*advice.warnings, stale)})
    note = as_markdown(advice, wanted.name, _dates(work))
    show(advice, wanted)
    run_id = _log(client, wanted, advice, note)
    console.publish_markdown(f"advice-{wanted.name}", note)
    return AdviceEnding("advice", _reason(advice), advice.expected_stop, 0.0, 0, run_id)


def known(work: Workspace) -> Premises:
    """Rows, prices and error probabilities of a use case, as the first question asked of its gate set would get them."""
    models, judge = work.use_case.models, work.use_case.judge_model
    alphas = evaluation.alphas(work.use_case, work.use_case.alpha * 6 / math.pi**2)
    return Premises(
        rows={name: work.tables.rows(name) or 0 for name in TABLES},
        prices={model.uri: work.price(model.uri) for model in models.candidates},
        base_price=work.price(models.base.uri) if models.base else None,
        judge_price=work.price(judge.uri) if judge else None,
        expected=costing.expected(work),
        repeat_share=work.repeat_share,
        alpha_pass=alphas.to_pass,
        alpha_fail=alphas.to_fail,
    )


def _dates(work: Workspace) -> dict[str, str]:
    given = {model.uri: model.price.as_of for model in work.use_case.models.candidates if model.price}
    dates = {"the price book": work.book.as_of} | {uri: day for uri, day in given.items() if day}
    return {what: day.isoformat() for what, day in dates.items()}


def _reason(advice: Advice) -> str:
    out = ", ".join(advice.named("ruled_out")) or "nothing"
    return f"expected stop: {advice.expected_stop or 'none'} ({advice.expected_why}); ruled out: {out}"


def _log(client: MlflowClient, use_case: UseCase, advice: Advice, note: str) -> str:
    from mlflow.entities import Metric, RunTag

    tags = {
        "leastwise.kind": "advice",
        "leastwise.use_case": use_case.name,
        "leastwise.outcome": "advice",
        "leastwise.reason": _reason(advice)[:5000],
        run_record.NOTE: note[:5000],
    }
    metrics = {"usd.spent": 0.0, "calls.paid": 0.0, "usd.possible": advice.possible_usd}
    metrics |= {f"usd.estimated.worst.{each.stage}": each.estimate_usd for each in advice.stages}
    metrics |= {
        f"usd.estimated.{each.stage}": each.expected_usd for each in advice.stages if each.expected_usd is not None
    }
    run = client.create_run(
        tracking.experiment(client, use_case.name), run_name=f"advice · expected stop {advice.expected_stop or 'none'}"
    )
    run_id = str(run.info.run_id)
    now = int(run.info.start_time)
    client.log_batch(
        run_id, [Metric(k, v, now, 0) for k, v in metrics.items()], tags=[RunTag(k, v) for k, v in tags.items()]
    )
    client.log_text(run_id, note, "advice.md")
    client.log_dict(run_id, advice.model_dump(mode="json"), "advice.json")
    client.set_terminated(run_id, "FINISHED")
    return run_id


def show(advice: Advice, use_case: UseCase) -> None:
    """The advice on standard error."""
    console.say(f"\nLeastwise · advice for {use_case.name} · nothing is spent")
    console.say(f"{use_case.description.strip()}\n")
    console.say(f"{'stage':<12} {'':<12} {'expected':>10} {'at worst':>10}  why")
    console.say("─" * 110)
    for each in advice.stages:
        console.say(
            f"{each.stage:<12} {MARK[each.status]:<12} {_usd(each.expected_usd):>10} {_usd(each.estimate_usd):>10}  {each.reason}"
        )
    console.say(
        f"{'(scratch)':<12} {'– refused':<12} {'':>10} {f'${advice.from_scratch_usd:,.0f}':>10}  {advice.from_scratch[0]}"
    )
    console.say("─" * 110)
    for considered in advice.considerations:
        console.say(f"{considered.name + ': ' + considered.finding:<58} → {considered.advice}")
    console.say("─" * 110)
    for need in advice.gate:
        console.say(f"gate: {need.requirement} is decided by about {need.examples:,} examples, {need.rows:,} are there")
    for text in advice.missing:
        console.say(f"missing: {text}")
    for text in advice.warnings:
        console.say(f"beware: {text}")
    console.say(advice.wait)
    console.say(f"Expected stop: {advice.expected_stop or 'none'}: {advice.expected_why}.")


def _usd(value: float | None) -> str:
    return "" if value is None else f"${value:.4g}"


def as_markdown(advice: Advice, name: str, prices_as_of: dict[str, str]) -> str:
    """The same for MLflow's description and the Prefect artifact; every price source with its date."""
    lines = [
        f"## Advice for {name}, before spending anything",
        "",
        f"Expected stop: **{advice.expected_stop or 'none'}** ({advice.expected_why}).",
        "",
        "| stage | | why | expected | at worst |",
        "|---|---|---|---|---|",
        *(
            f"| {e.stage} | {e.status.replace('_', ' ')} | {e.reason} | {_usd(e.expected_usd)} | {_usd(e.estimate_usd)} |"
            for e in advice.stages
        ),
        f"| (from scratch) | refused | below | | ${advice.from_scratch_usd:,.0f} |",
        "",
        "| looked at | found | advice |",
        "|---|---|---|",
        *(f"| {each.name} | {each.finding} | {each.advice} |" for each in advice.considerations),
        "",
        "| requirement | examples that decide it (about) | rows |",
        "|---|---|---|",
        *(f"| {need.requirement} | {need.examples:,} | {need.rows:,} |" for need in advice.gate),
    ]
    parts = {"Missing": advice.missing, "Beware": advice.warnings, "Wait?": (advice.wait,)}
    parts["How the expected figures come"] = tuple(
        f"{each.stage}: {'; '.join(each.arithmetic)}" for each in advice.stages if each.arithmetic
    )
    parts["Level 5, training from scratch (never run)"] = advice.from_scratch
    for title, texts in parts.items():
        lines += ["", f"**{title}**", "", *(f"- {text}" for text in texts or ("nothing",))]
    dated = ", ".join(f"{what} {day}" for what, day in prices_as_of.items())
    return "\n".join([*lines, "", f"Prices as of: {dated}."])
