"""The monthly bills of what a climb measured: by traffic, side by side, with the crossings; and what was spent on the climb.

Figures and tables only: the arithmetic is in `leastwise.money.curves` and `leastwise.money.economics`. Everything is read from what was
logged, so a report can be made again at any time.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from leastwise.ladder import best
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.venue_cost import price_of, retraining_usd_per_month
from leastwise.money.curves import SECONDS_PER_MONTH, Crossing, Machines, Option, cheapest, crossings, sensitivity
from leastwise.money.economics import payback_months, true_cost_of_fine_tuning
from leastwise.record import run_record, tracking
from leastwise.use_case import LADDER
from leastwise.use_case.price import Price, Usage

if TYPE_CHECKING:
    from mlflow.entities import Run

    from leastwise.answering.workspace import Workspace

WIDEST = 1000.0  # times today's traffic, up and down, that curves are drawn for
OWN = " on own machines"


def options(work: Workspace) -> list[Option]:
    """How every measured stage's candidate is billed, and open weights also as they would be on machines of one's own."""
    found = []
    for run in tracking.stage_runs(work.client, work.climb):
        if run.data.tags.get("leastwise.verdict") in (None, "SKIPPED", "ERROR"):
            continue
        candidate = run_record.load_candidate(work.client, run.info.run_id)
        stage = str(run.data.tags["leastwise.stage"])
        found.append(_option(work, candidate, run, stage, candidate.venue))
        found += _at_hosts(work, candidate, run, stage)
        may_own = (
            run.data.tags.get("leastwise.open_weights") == "yes" and work.use_case.hosting.usd_per_month_per_machine > 0
        )
        if candidate.venue != "self_host" and may_own and "requests_per_s" in run.data.metrics:
            found.append(_option(work, candidate, run, stage + OWN, "self_host"))
    return found


def _at_hosts(work: Workspace, candidate: Candidate, run: Run, stage: str) -> list[Option]:
    """The same weights by the token at every managed host of the price book that offers them."""
    if candidate.weights or candidate.cascade:
        return []
    return [
        Option(
            name=f"{stage} at {name}",
            price=host.models[candidate.model],
            usage=_usage(run.data.metrics),
            retry_share=work.use_case.traffic.retry_share,
            minimum_usd_per_month=host.minimum_usd_per_month,
            price_decline_per_year=work.use_case.hosting.price_decline_per_year,
        )
        for name, host in work.book.managed.items()
        if candidate.model in host.models
    ]


def _option(work: Workspace, candidate: Candidate, run: Run, name: str, venue: str) -> Option:
    hosting, figures = work.use_case.hosting, run.data.metrics
    trains = candidate.weights is not None
    recurring = retraining_usd_per_month(work.use_case) if trains else 0.0
    if venue == "self_host":
        machines = Machines(
            usd_per_month=hosting.usd_per_month_per_machine,
            requests_per_s=figures.get("requests_per_s", 1.0),
            spares=hosting.spare_machines,
        )
        fixed = hosting.storage_usd_per_month + hosting.operations_usd_per_month
        return Option(name=name, machines=machines, fixed_usd_per_month=fixed, recurring_usd_per_month=recurring)
    price, usage = price_of(work.use_case, candidate, work.price), _usage(figures)
    if candidate.cascade:  # two prices: what a request came to on average stands for both
        price, usage = Price(input=figures.get("usd.per_request", 0.0), output=0.0), Usage(1_000_000)
    return Option(
        name=name,
        price=price,
        usage=usage,
        retry_share=work.use_case.traffic.retry_share,
        minimum_usd_per_month=hosting.managed_minimum_usd_per_month if venue == "managed" else 0.0,
        recurring_usd_per_month=recurring,
        price_decline_per_year=hosting.price_decline_per_year,
    )


def _usage(figures: dict[str, float]) -> Usage:
    """Tokens of a request on average over what was measured; a cache's hits count as requests of no token."""
    requests = max(figures.get("calls.paid", 0.0) + figures.get("calls.cached", 0.0), 1.0)
    each = {name: round(figures.get(f"tokens.{name}", 0.0) / requests) for name in ("input", "cached", "output")}
    return Usage(each["input"], min(each["cached"], each["input"]), 0, each["output"])


def peak_ratio(work: Workspace) -> float:
    """The busiest hour's rate over the mean rate, at least 1."""
    traffic = work.use_case.traffic
    return max(1.0, traffic.peak_requests_per_s * SECONDS_PER_MONTH / traffic.requests_per_month)


def report(work: Workspace, outcome: str) -> tuple[str, dict[str, float]]:
    """The bills in Markdown and as metrics; empty where nothing was measured."""
    known = options(work)
    if not known:
        return "", {}
    now, ratio = float(work.use_case.traffic.requests_per_month), peak_ratio(work)
    lines = [
        f"### The bill of a month at {now:,.0f} requests (prices of {work.book.as_of.isoformat()} or as the use case states them)",
        "",
        "| candidate | tokens | fixed | retraining and labels | all in |",
        "|---|---|---|---|---|",
    ]
    decline = work.use_case.hosting.price_decline_per_year
    for option in known:
        bill = option.month(now, ratio)
        lines.append(
            f"| {option.name} | ${bill.variable_usd:,.2f} | ${bill.fixed_usd:,.2f} | ${bill.recurring_usd:,.2f} "
            f"| ${bill.total_usd:,.2f} |"
        )
    if decline:
        later = ", ".join(f"{option.name} ${option.month(now, ratio, 12).total_usd:,.2f}" for option in known)
        lines += ["", f"In a year, with token prices {decline:.0%} lower: {later}."]
    if stale := work.book.stale(datetime.now(UTC).date()):
        lines += ["", f"**Beware**: {stale}."]
    lines += ["", *_crossing_lines(_of_interest(known, outcome), now, ratio)]
    more, metrics = _payback(work, known, outcome, now, ratio)
    metrics |= {"usd.month.cheapest": cheapest(known, now, ratio).month(now, ratio).total_usd}
    return "\n".join([*lines, "", *more]), metrics


def _of_interest(known: list[Option], outcome: str) -> list[Option]:
    """All that is rented, and the winner on own machines; without a winner every pair is shown."""
    winner = [option for option in known if option.machines and option.name.removesuffix(OWN) == outcome]
    return [option for option in known if option.price is not None] + winner if winner else known


def _crossing_lines(known: list[Option], now: float, ratio: float) -> list[str]:
    """Where owning becomes cheaper than renting for each pair of one of each, and how that moves."""
    lines = []
    for rented, owned in _pairs(known):
        found = crossings(rented, owned, now * WIDEST, ratio)
        starts_owned = cheapest((rented, owned), 0.0, ratio).name == owned.name
        to_owned = [0.0] * starts_owned + [each.requests_per_month for each in found if each.cheaper == owned.name]
        if not to_owned:
            lines.append(
                f"- {owned.name} never gets cheaper than {rented.name}, up to {now * WIDEST:,.0f} requests a month."
            )
            continue
        ends_owned = found[-1].cheaper == owned.name if found else starts_owned
        settled = (
            f"for good from {_traffic(to_owned[-1])}"
            if ends_owned
            else f"but not beyond {found[-1].requests_per_month:,.0f}"
        )
        moved = sensitivity(rented, owned, now * WIDEST, ratio)[1:]
        words = ", ".join(f"{m.changed}: {_traffic(m.requests_per_month)}" for m in moved)
        more = "" if starts_owned else f" ({words})"
        lines.append(f"- {owned.name} is cheaper than {rented.name} from {_traffic(to_owned[0])}, {settled}{more}.")
    return lines


def _traffic(requests: float | None) -> str:
    if requests is None:
        return "never"
    return f"{requests:,.0f} requests a month" if requests else "the first request"


def _pairs(known: list[Option]) -> list[tuple[Option, Option]]:
    owned = [option for option in known if option.machines]
    return [(rented, own) for rented in known if rented.price is not None for own in owned]


def _payback(
    work: Workspace, known: list[Option], outcome: str, now: float, ratio: float
) -> tuple[list[str], dict[str, float]]:
    """What the training behind a trained winner truly costs, and in how many months it pays for itself."""
    by_name = {option.name: option for option in known}
    if outcome not in ("fine_tune", "pretrain", "distill", "self_host") or outcome not in by_name:
        return [], {}
    trained = sum(work.ledger.spent_for_stage(work.climb.run_id, stage).get("training", 0.0) for stage in LADDER)
    true = true_cost_of_fine_tuning(trained, work.use_case.training.surrounding)
    untrained = best([record for record in work.history() if record.stage in ("prompt", "rag", "cache")])
    words = ", ".join(f"{name.removesuffix('_usd')} ${usd:,.4g}" for name, usd in asdict(true).items())
    lines = [f"Training and what comes with it, by the use case's multiples: ${true.total_usd:,.4g} ({words})."]
    metrics = {"usd.true_cost": true.total_usd}
    if untrained is None or trained == 0:
        return lines, metrics
    before = by_name[untrained.stage]
    saving = before.month(now, ratio).total_usd - by_name[outcome].month(now, ratio).total_usd
    months = payback_months(true.total_usd, saving)
    if months is None:
        lines.append(
            f"It is not paid back by the bill: {before.name} costs ${-saving:,.2f} less a month; what it does not meet is what the money buys."
        )
        return lines, metrics
    lines.append(f"Against {before.name} it saves ${saving:,.2f} a month and is paid back in {months:.1f} months.")
    return lines, metrics | {"payback_months": months}


def log_figures(work: Workspace) -> None:
    """Cost against traffic, cost by stage and spend over time, on the climb's run."""
    known = options(work)
    if known:
        _log_curves(work, known)
        work.client.log_dict(work.climb.run_id, [option.model_dump(mode="json") for option in known], "economics.json")
    _log_stages(work)
    _log_spend(work)


def _log_curves(work: Workspace, known: list[Option]) -> None:
    from matplotlib.figure import Figure

    now, ratio = float(work.use_case.traffic.requests_per_month), peak_ratio(work)
    traffic = np.geomspace(now / WIDEST, now * WIDEST, 400)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for option in known:
        axis.plot(traffic, [option.month(n, ratio).total_usd for n in traffic], label=option.name)
    for rented, owned in _pairs(known):
        for crossing in _within(crossings(rented, owned, now * WIDEST, ratio), now):
            usd = owned.month(crossing.requests_per_month, ratio).total_usd
            axis.plot([crossing.requests_per_month], [usd], "o", color="black", markersize=4)
    axis.axvline(now, color="grey", linestyle=":", label="traffic today")
    axis.set(
        xscale="log", yscale="log", xlabel="requests a month", ylabel="dollars a month", title="Cost against traffic"
    )
    axis.legend(fontsize=7)
    work.client.log_figure(work.climb.run_id, figure, "cost_against_traffic.png")


def _within(found: tuple[Crossing, ...], now: float) -> list[Crossing]:
    """The first crossings of a pair, as far as they are drawn; each further machine makes two more."""
    return [each for each in found if each.requests_per_month >= now / WIDEST][:6]


def _log_stages(work: Workspace) -> None:
    """Estimated and actual dollars of every stage that was run."""
    from matplotlib.figure import Figure

    runs = [run for run in tracking.stage_runs(work.client, work.climb) if "usd.estimated" in run.data.metrics]
    if not runs:
        return
    names = [str(run.data.tags["leastwise.stage"]) for run in runs]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(names))
    axis.bar(at - 0.2, [run.data.metrics["usd.estimated"] for run in runs], 0.4, label="expected", color="tab:grey")
    axis.bar(
        at + 0.2,
        [work.ledger.spent_by(work.climb.run_id, name) for name in names],
        0.4,
        label="spent",
        color="tab:blue",
    )
    axis.set_xticks(at, names)
    axis.set(ylabel="dollars", title="Cost by stage of this climb")
    axis.legend(fontsize=8)
    work.client.log_figure(work.climb.run_id, figure, "cost_by_stage.png")


def _log_spend(work: Workspace) -> None:
    """What every flow of the use case has spent this month, against the monthly budget."""
    from matplotlib.figure import Figure

    today = datetime.now(UTC)
    first = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    entries = work.ledger.over_time(work.use_case.name, first.timestamp())
    if not entries:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis = figure.subplots()
    for purpose in dict.fromkeys(purpose for _, purpose, _ in entries):
        own = [(datetime.fromtimestamp(at, UTC), usd) for at, kind, usd in entries if kind == purpose]
        axis.step([at for at, _ in own], np.cumsum([usd for _, usd in own]), where="post", label=purpose, marker=".")
    axis.axhline(work.use_case.budget_usd_per_month, color="tab:red", linestyle="--", label="budget of the month")
    axis.set(ylabel="dollars so far", yscale="log", title=f"Spend of {work.use_case.name} in {today:%B %Y}")
    axis.tick_params(axis="x", rotation=30)
    axis.legend(fontsize=8)
    work.client.log_figure(work.climb.run_id, figure, "spend.png")
