"""Figures of money on a climb's run: cost against traffic, cost by stage, and spend against the month's budget.

The bills behind them are in `leastwise.record.bills`. It computes no bill of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import numpy as np

from leastwise.money.curves import Crossing, Option, crossings
from leastwise.record.bills import WIDEST, Bills, pairs

MOST_CROSSINGS = 6  # of a pair, as far as they are drawn; each further machine makes two more


def log_money_figures(bills: Bills) -> None:
    """Cost against traffic, cost by stage and spend over time, on the climb's run."""
    options = bills.options()
    if options:
        _log_curves(bills, options)
        rows: list[object] = [option.model_dump(mode="json") for option in options]
        bills.run.client.log_dict(bills.run.id, cast("dict[str, object]", rows), "economics.json")
    _log_stages(bills)
    _log_spend(bills)


def _log_curves(bills: Bills, options: Sequence[Option]) -> None:
    from matplotlib.figure import Figure

    now = bills.now
    traffic = np.geomspace(now / WIDEST, now * WIDEST, 400)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    curves = {option.name: [bills.usd_per_month(option, float(n)) for n in traffic] for option in options}
    for name, curve in curves.items():
        axis.plot(traffic, curve, label=name)
    for rented, owned in pairs(options):
        for crossing in _drawn(crossings(rented, owned, now * WIDEST, bills.peak_ratio), now):
            usd = bills.usd_per_month(owned, crossing.requests_per_month)
            axis.plot([crossing.requests_per_month], [usd], "o", color="black", markersize=4)
    axis.axvline(now, color="grey", linestyle=":", label="traffic today")
    has_a_log = all(usd > 0 for curve in curves.values() for usd in curve)  # what is free has none
    dollars = "log" if has_a_log else "symlog"
    axis.set(xscale="log", yscale=dollars, xlabel="requests a month", ylabel="dollars a month")
    axis.set(title="Cost against traffic")
    axis.legend(fontsize=7)
    bills.run.client.log_figure(bills.run.id, figure, "cost_against_traffic.png")


def _drawn(turns: tuple[Crossing, ...], now: float) -> list[Crossing]:
    return [each for each in turns if each.requests_per_month >= now / WIDEST][:MOST_CROSSINGS]


def _log_stages(bills: Bills) -> None:
    """Estimated and actual dollars of every stage that was run."""
    from matplotlib.figure import Figure

    runs = [run for run in bills.run.stage_runs() if "usd.estimated" in run.figures]
    if not runs:
        return
    names = [str(run.stage) for run in runs]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis, at = figure.subplots(), np.arange(len(names))
    axis.bar(at - 0.2, [run.figures["usd.estimated"] for run in runs], 0.4, label="expected", color="tab:grey")
    axis.bar(at + 0.2, [bills.budget.spent_by(name) for name in names], 0.4, label="spent", color="tab:blue")
    axis.set_xticks(at, names)
    axis.set(ylabel="dollars", title="Cost by stage of this climb")
    axis.legend(fontsize=8)
    bills.run.client.log_figure(bills.run.id, figure, "cost_by_stage.png")


def _log_spend(bills: Bills) -> None:
    """What every flow of the use case has spent this month, against the monthly budget."""
    from matplotlib.figure import Figure

    today, use_case = datetime.now(UTC), bills.use_case
    first = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    entries = bills.budget.ledger.over_time(use_case.name, first.timestamp())
    if not entries:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis = figure.subplots()
    for purpose in dict.fromkeys(purpose for _, purpose, _ in entries):
        own = [(datetime.fromtimestamp(at, UTC), usd) for at, kind, usd in entries if kind == purpose]
        axis.step(
            np.asarray([at for at, _ in own]),
            np.cumsum([usd for _, usd in own]),
            where="post",
            label=purpose,
            marker=".",
        )
    axis.axhline(use_case.budget_usd_per_month, color="tab:red", linestyle="--", label="budget of the month")
    axis.set(ylabel="dollars so far", yscale="log", title=f"Spend of {use_case.name} in {today:%B %Y}")
    axis.tick_params(axis="x", rotation=30)
    axis.legend(fontsize=8)
    bills.run.client.log_figure(bills.run.id, figure, "spend.png")
