"""Advice before spending: reads a use case, its rows and prices, hands them to `leastwise.ladder.advice`, shows and
logs it.

It opens no climb, draws on no alpha account, loads no weights and calls no model, so it also works for models that
cannot run here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial

from prefect import task

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.ladder.advice import Advice, advise
from leastwise.ladder.alphas import first_alphas
from leastwise.ladder.ending import AdviceEnding
from leastwise.ladder.premises import Offer, Premises
from leastwise.ladder.prospects import payback_of
from leastwise.money import PriceBook
from leastwise.record.advice_run import log_advice
from leastwise.record.client import connect
from leastwise.rows.findings.in_tables import found_in
from leastwise.rows.preparing.models_at_hand import PROVIDERS, drafted_fields
from leastwise.rows.use_case_file import Overrides, load
from leastwise.use_case import UseCase
from leastwise.use_case.model import Model
from tasks.session.artifacts import publish_markdown
from tasks.session.checks import RELIED_ON, notes, reached, stated
from tasks.session.console import RULE, say
from tasks.session.held import JUDGED
from tasks.session.workspace import Prospect, prospect_of

CHEAPER = (
    "What would make this cheaper to decide (figures of candidates exactly as good as asked, the hardest to decide)"
)
NOTHING_CHEAPER = "nothing that is known of"
MARK = {"possible": "possible", "ruled_out": "– ruled out"}


@task(name="advise")
def give_advice(use_case: str, overrides: Overrides | None = None) -> AdviceEnding:
    """Check a use case and its rows as a climb would, say what can be said before spending, and log that as one MLflow
    run. BadInput, after the advice where there can be any, lists all that a climb would refuse.
    """
    case, today = load(use_case, overrides), datetime.now(UTC).date()
    prospect = prospect_of(case)
    problems = problems_of(stated(prospect, (*JUDGED, *RELIED_ON)))
    try:
        client = connect()
        premises = premises_of(prospect, today)
        advice = advise(prospect.question.use_case, premises)
    except BadInput:  # rows that cannot be read, prices nobody knows: there is nothing to advise
        refuse(problems)
        raise
    beside = filter(None, [prospect.catalogue.book.stale(today), prospect.question.units_in_words])
    elsewhere = (f"not checked here: {text}" for text in problems_of(reached(prospect)))
    months = payback_of(prospect.question.use_case, premises, advice.named("possible"))
    going = (*prospect.catalogue.retiring(today), *prospect.catalogue.going_before_payback(months, today))
    beware = (*notes(prospect), *beside, *going, *elsewhere)
    advice = advice.model_copy(update={"warnings": (*advice.warnings, *beware), "refused": problems})
    note, reason = as_markdown(advice, case.name, _dates(prospect)), _reason(advice)
    show(advice, prospect.question.use_case)
    run_id = log_advice(client, prospect.question.use_case, advice, reason, note)
    publish_markdown(f"advice-{case.name}", note)
    refuse(problems)
    cheaper = tuple(saving.said for saving in advice.cheaper)
    return AdviceEnding("advice", reason, advice.expected_stop, 0.0, 0, run_id, cheaper)


def premises_of(prospect: Prospect, today: date) -> Premises:
    """Rows and what is found in them, prices and error probabilities of a use case, as the first question asked of its
    gate set would get them.
    """
    question, catalogue = prospect.question, prospect.catalogue
    alphas = first_alphas(question.use_case)
    return Premises(
        rows={name: count or 0 for name, count in question.counts().items()},
        prices=catalogue.candidate_prices(),
        base_price=catalogue.base_price(),
        judge_price=catalogue.judge_price(),
        worst=prospect.costing.worst,
        usages=prospect.costing.usages(),
        expected=prospect.costing.expected(),
        facts=prospect.costing.facts(),
        found=found_in(question.tables),
        offers=_offers(prospect, today),
        repeat_share=question.repeat_share,
        alpha_pass=alphas.to_pass,
        alpha_fail=alphas.to_fail,
    )


def _offers(prospect: Prospect, today: date) -> tuple[Offer, ...]:
    """The small model that the book drafts of each provider that a candidate is asked at, with its price."""
    candidates, catalogue = prospect.question.use_case.models.candidates, prospect.catalogue
    offers: list[Offer] = []
    for provider in PROVIDERS:
        entry = catalogue.model_book.drafted_by(provider, today)
        hosts = {model.request_host for model in candidates if model.uri.startswith(f"{provider}:")}
        if entry is None or entry.drafted is None or entry.drafted.host not in hosts:
            continue
        model = Model.model_validate(drafted_fields(entry))
        problems_of([partial(_offer, offers, model, catalogue.book)])  # whose price nobody knows is not offered
    return tuple(offers)


def _offer(offers: list[Offer], model: Model, book: PriceBook) -> None:
    offers.append(Offer(model=model, price=book.price(model.uri)))


def _dates(prospect: Prospect) -> dict[str, str]:
    candidates = prospect.question.use_case.models.candidates
    stated = {model.uri: model.price.as_of for model in candidates if model.price}
    dates = {"the price book": prospect.catalogue.book.as_of} | {uri: day for uri, day in stated.items() if day}
    return {what: day.isoformat() for what, day in dates.items()}


def _reason(advice: Advice) -> str:
    out = ", ".join(advice.named("ruled_out")) or "nothing"
    return f"expected stop: {advice.expected_stop or 'none'} ({advice.expected_why}); ruled out: {out}"


def show(advice: Advice, use_case: UseCase) -> None:
    """The advice on standard error."""
    say(f"\nLeastwise · advice for {use_case.name} · nothing is spent")
    say(f"{use_case.description.strip()}\n")
    say(f"{'stage':<12} {'':<12} {'expected':>10} {'at worst':>10}  why")
    say(RULE)
    for each in advice.stages:
        say(
            f"{each.stage:<12} {MARK[each.status]:<12} {_usd(each.expected_usd):>10} {_usd(each.estimate_usd):>10}  "
            f"{each.reason}"
        )
    say(
        f"{'(scratch)':<12} {'– refused':<12} {'':>10} {f'${advice.from_scratch_usd:,.0f}':>10}  "
        f"{advice.from_scratch[0]}"
    )
    say(RULE)
    for considered in advice.considerations:
        say(f"{considered.name + ': ' + considered.finding:<58} → {considered.advice}")
    say(RULE)
    for need in advice.gate:
        say(f"gate: {need.requirement} is decided by about {need.examples:,} examples, {need.rows:,} are there")
    for text in advice.refused:
        say(f"refused: {text}")
    for text in advice.missing:
        say(f"missing: {text}")
    for text in advice.warnings:
        say(f"beware: {text}")
    for text in advice.data:
        say(f"data: {text}")
    say(advice.wait)
    say(f"Expected stop: {advice.expected_stop or 'none'}: {advice.expected_why}.")
    say(CHEAPER)
    for text in _cheaper(advice):
        say(f"  {text}")


def _cheaper(advice: Advice) -> tuple[str, ...]:
    return tuple(saving.said for saving in advice.cheaper) or (NOTHING_CHEAPER,)


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
            f"| {e.stage} | {e.status.replace('_', ' ')} | {e.reason} | {_usd(e.expected_usd)} "
            f"| {_usd(e.estimate_usd)} |"
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
    dated = ", ".join(f"{what} {day}" for what, day in prices_as_of.items())
    lines += ["", f"Prices as of: {dated}."]
    parts = {  # what a page has no room for is cut at its end
        CHEAPER: _cheaper(advice),
        "Refused before anything is spent": advice.refused,
        "Missing": advice.missing,
        "Beware": advice.warnings,
        "Wait?": (advice.wait,),
        "Data": advice.data,
    }
    parts["How the expected figures come"] = tuple(
        f"{each.stage}: {'; '.join(each.arithmetic)}" for each in advice.stages if each.arithmetic
    )
    parts["Level 5, training from scratch (never run)"] = advice.from_scratch
    for title, texts in parts.items():
        lines += ["", f"**{title}**", "", *(f"- {text}" for text in texts or ("nothing",))]
    return "\n".join(lines)
