"""The monthly bills of what a climb measured: by traffic, side by side, with the crossings; and what training pays
back.

Tables only: the arithmetic is in `leastwise.money`, the figures in `leastwise.record.money_figures`. Everything is read
from what was logged, so a report can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from leastwise.ladder import best
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import EXAM, TRAFFIC
from leastwise.models.catalogue import Catalogue
from leastwise.money.curves import SECONDS_PER_MONTH, Machines, Option, cheapest, crossings, sensitivity
from leastwise.money.economics import payback_months, true_cost_of_fine_tuning
from leastwise.money.load import repriced
from leastwise.money.venue_cost import retraining_usd_per_month
from leastwise.record.climb_run import ClimbRun
from leastwise.record.reports import unknown_usage
from leastwise.record.stage_run import StageRun
from leastwise.stores.budget import Budget
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Price, Usage

WIDEST = 1000.0  # times today's traffic, up and down, that curves are drawn for
OWN = " on own machines"
TRAINED = ("fine_tune", "pretrain", "distill", "self_host")
CAPACITIES = (("", ""), ("load.", "_within_bound"))  # as the gate priced machines, and as their endpoint carries
UNTRAINED = ("prompt", "rag", "cache")


@dataclass(frozen=True)
class BillReport:
    """The bills in Markdown and as metrics; empty where nothing was measured."""

    text: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bills:
    """The bills of one climb."""

    run: ClimbRun
    catalogue: Catalogue
    budget: Budget

    @property
    def use_case(self) -> UseCase:
        """Whose traffic is billed."""
        return self.catalogue.use_case

    @property
    def now(self) -> float:
        """Requests a month."""
        return float(self.use_case.traffic.requests_per_month)

    @property
    def peak_ratio(self) -> float:
        """The busiest hour's rate over the mean rate, at least 1."""
        traffic = self.use_case.traffic
        return max(1.0, traffic.peak_requests_per_s * SECONDS_PER_MONTH / traffic.requests_per_month)

    def usd_per_month(self, option: Option, requests_per_month: float | None = None, months: int = 0) -> float:
        """The whole bill of a month at this traffic (today's unless given), `months` from now."""
        return option.month(requests_per_month or self.now, self.peak_ratio, months).total_usd

    def options(self) -> list[Option]:
        """How every measured stage's candidate is billed, and open weights also as they would be on own machines."""
        options = []
        for run in self.run.stage_runs():
            if not run.is_evidence:
                continue
            candidate = run.candidate()
            options.append(self._option(candidate, run, str(run.stage), candidate.venue))
            options += self._at_hosts(candidate, run)
            may_own = run.has_open_weights and self.use_case.hosting.usd_per_month_per_machine > 0
            if candidate.venue != "self_host" and may_own and "requests_per_s" in run.figures:
                options.append(self._option(candidate, run, f"{run.stage}{OWN}", "self_host"))
        return options

    def _at_hosts(self, candidate: Candidate, run: StageRun) -> list[Option]:
        """The same weights by the token at every managed host of the price book that offers them."""
        if candidate.weights or candidate.cascade:
            return []
        return [
            Option(
                name=f"{run.stage} at {name}",
                price=host.models[candidate.model],
                usage=_mean_usage(run.figures),
                retry_share=self.use_case.traffic.retry_share,
                minimum_usd_per_month=host.minimum_usd_per_month,
                price_decline_per_year=self.use_case.hosting.price_decline_per_year,
            )
            for name, host in self.catalogue.book.managed.items()
            if candidate.model in host.models
        ]

    def _option(self, candidate: Candidate, run: StageRun, name: str, venue: Venue) -> Option:
        hosting, figures = self.use_case.hosting, run.figures
        recurring = 0.0
        if candidate.weights is not None:
            recurring = retraining_usd_per_month(self.use_case, figures.get("usd.per_retraining", 0.0))
        if venue == "self_host":
            machines = Machines(
                usd_per_month=hosting.usd_per_month_per_machine,
                requests_per_s=figures.get("requests_per_s", 1.0),
                spares=hosting.spare_machines,
            )
            fixed = hosting.storage_usd_per_month + hosting.operations_usd_per_month
            return Option(name=name, machines=machines, fixed_usd_per_month=fixed, recurring_usd_per_month=recurring)
        price, usage = self.catalogue.price_in_venue(candidate), _mean_usage(figures)
        if candidate.cascade:  # two prices: what a request came to on average stands for both
            price, usage = Price(input=figures.get("usd.per_request", 0.0), output=0.0), Usage(1_000_000)
        return Option(
            name=name,
            price=price,
            usage=usage,
            retry_share=self.use_case.traffic.retry_share,
            minimum_usd_per_month=hosting.managed_minimum_usd_per_month if venue == "managed" else 0.0,
            recurring_usd_per_month=recurring,
            price_decline_per_year=hosting.price_decline_per_year,
        )

    def report(self, outcome: str) -> BillReport:
        """The bills at today's traffic, where owning becomes cheaper, and what training pays back."""
        options = self.options()
        if not options:
            return BillReport()
        payback = self._payback(options, outcome)
        lines = [
            *self._bill_lines(options),
            "",
            *self._crossing_lines(_of_interest(options, outcome)),
            "",
            payback.text,
        ]
        least = self.usd_per_month(cheapest(options, self.now, self.peak_ratio))
        text = "\n".join(lines) if payback.text else "\n".join(lines[:-1])
        return BillReport(text, {**payback.metrics, "usd.month.cheapest": least})

    def _bill_lines(self, options: Sequence[Option]) -> list[str]:
        book, decline = self.catalogue.book, self.use_case.hosting.price_decline_per_year
        dated = f"(prices of {book.as_of.isoformat()} or as the use case states them)"
        lines = [
            f"### The bill of a month at {self.now:,.0f} requests {dated}",
            "",
            "| candidate | tokens | fixed | retraining and labels | all in |",
            "|---|---|---|---|---|",
        ]
        for option in options:
            bill = option.month(self.now, self.peak_ratio)
            parts = (bill.variable_usd, bill.fixed_usd, bill.recurring_usd, bill.total_usd)
            lines.append(f"| {option.name} | {' | '.join(f'${usd:,.2f}' for usd in parts)} |")
        lines += self._as_carried()
        lines += self._upper_limits()
        if decline:
            later = ", ".join(f"{option.name} ${self.usd_per_month(option, months=12):,.2f}" for option in options)
            lines += ["", f"In a year, with token prices {decline:.0%} lower: {later}."]
        if stale := book.stale(datetime.now(UTC).date()):
            lines += ["", f"**Beware**: {stale}."]
        return lines

    def _as_carried(self) -> list[str]:
        """What own machines come to by what the endpoint itself carried, beside what the gate priced them by."""
        said = []
        for run in (run for run in self.run.stage_runs() if run.is_evidence):
            priced, carries = (run.figures.get(f"{name}requests_per_s{end}", 0.0) for name, end in CAPACITIES)
            made = repriced(self.use_case, priced, carries) if run.candidate().venue == "self_host" else None
            if made:
                usd = made.more_usd_per_1k * self.now / 1000
                count = "as many machines" if made.machines == made.priced_machines else f"{made.machines} machines"
                said.append(
                    f"{run.stage} behind its endpoint carries {carries:,.3g} requests a second and machine (priced: "
                    f"{priced:,.3g}): {count}, ${abs(usd):,.2f} a month {'less' if usd < 0 else 'more'}."
                )
        return ["", *said] if said else []

    def _upper_limits(self) -> list[str]:
        """Of whom the bill is the most it can be, for answers came without usage."""
        runs = [(run.stage, unknown_usage(run.figures)) for run in self.run.stage_runs() if run.is_evidence]
        said = [f"- {stage}: {why}" for stage, why in runs if why]
        return ["", "Upper limits, and no more:", "", *said] if said else []

    def _crossing_lines(self, options: Sequence[Option]) -> list[str]:
        """Where owning becomes cheaper than renting for each pair of one of each, and how that moves."""
        return [self._crossing_line(*pair) for pair in pairs(options)]

    def _crossing_line(self, rented: Option, owned: Option) -> str:
        most, ratio = self.now * WIDEST, self.peak_ratio
        turns = crossings(rented, owned, most, ratio)
        starts_owned = cheapest((rented, owned), 0.0, ratio).name == owned.name
        to_owned = [0.0] * starts_owned + [each.requests_per_month for each in turns if each.cheaper == owned.name]
        if not to_owned:
            return f"- {owned.name} never gets cheaper than {rented.name}, up to {most:,.0f} requests a month."
        settled = f"for good from {_traffic(to_owned[-1])}"
        if turns and turns[-1].cheaper != owned.name:
            settled = f"but not beyond {turns[-1].requests_per_month:,.0f}"
        moved = sensitivity(rented, owned, most, ratio)[1:]
        words = ", ".join(f"{each.changed}: {_traffic(each.requests_per_month)}" for each in moved)
        more = "" if starts_owned else f" ({words})"
        return f"- {owned.name} is cheaper than {rented.name} from {_traffic(to_owned[0])}, {settled}{more}."

    def _payback(self, options: Sequence[Option], outcome: str) -> BillReport:
        """What the training behind a trained winner truly costs, and in how many months it pays for itself."""
        by_name = {option.name: option for option in options}
        if outcome not in TRAINED or outcome not in by_name:
            return BillReport()
        training = sum(self.budget.spent_by_purpose_of(stage).get("training", 0.0) for stage in LADDER)
        true = true_cost_of_fine_tuning(training, self.use_case.training.surrounding)
        words = ", ".join(f"{name.removesuffix('_usd')} ${usd:,.4g}" for name, usd in asdict(true).items())
        line = f"Training and what comes with it, by the use case's multiples: ${true.total_usd:,.4g} ({words})."
        metrics = {"usd.true_cost": true.total_usd}
        history = self.run.history(self.use_case.gate_requirements)
        untrained = best([record for record in history if record.stage in UNTRAINED])
        if untrained is None or training == 0:
            return BillReport(line, metrics)
        before = by_name[untrained.stage]
        saving = self.usd_per_month(before) - self.usd_per_month(by_name[outcome])
        months = payback_months(true.total_usd, saving)
        if months is None:
            no_saving = f"{before.name} costs ${-saving:,.2f} less a month"
            more = f"It is not paid back by the bill: {no_saving}; what it does not meet is what the money buys."
            return BillReport(f"{line}\n{more}", metrics)
        more = f"Against {before.name} it saves ${saving:,.2f} a month and is paid back in {months:.1f} months."
        return BillReport(f"{line}\n{more}", metrics | {"payback_months": months})


def pairs(options: Sequence[Option]) -> list[tuple[Option, Option]]:
    """Every rented option with every owned one."""
    owned = [option for option in options if option.machines]
    return [(rented, own) for rented in options if rented.price is not None for own in owned]


def _of_interest(options: Sequence[Option], outcome: str) -> list[Option]:
    """All that is rented, and the winner on own machines; without a winner every pair is shown."""
    winner = [option for option in options if option.machines and option.name.removesuffix(OWN) == outcome]
    return [option for option in options if option.price is not None] + winner if winner else list(options)


def _mean_usage(figures: Mapping[str, float]) -> Usage:
    """Tokens of a request on average over what was measured; a cache's hits count as requests of no token.

    Requests are the rows whose tokens were summed up: what else was called (a judge, a replay's rest) used others.
    """
    rows = {name.removeprefix("rows."): count for name, count in figures.items() if name.startswith("rows.")}
    counted = rows.get(TRAFFIC) or sum(count for name, count in rows.items() if name != EXAM)
    requests = max(counted or figures.get("calls.paid", 0.0) + figures.get("calls.cached", 0.0), 1.0)
    each = {name: round(figures.get(f"tokens.{name}", 0.0) / requests) for name in ("input", "cached", "output")}
    return Usage(each["input"], min(each["cached"], each["input"]), 0, each["output"])


def _traffic(requests: float | None) -> str:
    if requests is None:
        return "never"
    return f"{requests:,.0f} requests a month" if requests else "the first request"
