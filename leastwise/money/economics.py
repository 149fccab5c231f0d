"""What a month costs in each venue, where owning beats renting, and what training costs: arithmetic on numbers.

It knows no use case, no traffic model and no price book, and it does not model price decline, queueing (throughput
must be measured at the latency bound) or the time machines take to start.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, isfinite

from leastwise.errors import BadInput
from leastwise.use_case.price import MILLION, Price, Usage
from leastwise.use_case.training import Multipliers

HOURS_PER_MONTH = 730
DAYS_PER_MONTH = 365 / 12
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward 2, backward 4: Kaplan et al. 2020, arXiv 2001.08361, section 2.1


def _check(**amounts: float) -> None:
    for name, amount in amounts.items():
        if not (isfinite(amount) and amount >= 0):
            raise BadInput(f"{name}: {amount} must be a number of 0 or more")


def _check_positive(**amounts: float) -> None:
    for name, amount in amounts.items():
        if not (isfinite(amount) and amount > 0):
            raise BadInput(f"{name}: {amount} must be a number above 0")


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """One month's bill: what grows with requests, what does not, and what retraining and labels come to."""

    variable_usd: float = 0.0
    fixed_usd: float = 0.0
    recurring_usd: float = 0.0

    def __post_init__(self) -> None:
        _check(variable_usd=self.variable_usd, fixed_usd=self.fixed_usd, recurring_usd=self.recurring_usd)

    @property
    def total_usd(self) -> float:
        """Dollars a month, all in."""
        return self.variable_usd + self.fixed_usd + self.recurring_usd

    def usd_per_1k(self, requests_per_month: float) -> float:
        """All-in dollars for 1,000 requests: what the requirement `usd_per_1k_requests` bounds."""
        _check_positive(requests_per_month=requests_per_month)
        return 1000 * self.total_usd / requests_per_month


def monthly_api_usd(
    price: Price,
    usage: Usage,
    requests_per_month: float,
    retry_share: float = 0.0,
    retrieval_usd_per_request: float = 0.0,
) -> float:
    """Dollars a month for requests of one shape, at its cache hits; a retried request is paid twice."""
    _check(requests_per_month=requests_per_month, retry_share=retry_share, retrieval=retrieval_usd_per_request)
    return requests_per_month * (price.usd(usage) * (1 + retry_share) + retrieval_usd_per_request)


def monthly_self_host(
    machines: int,
    usd_per_month_per_machine: float,
    storage_usd_per_month: float = 0.0,
    operations_usd_per_month: float = 0.0,
    recurring_usd_per_month: float = 0.0,
) -> MonthlyCost:
    """The bill of own endpoints: whole machines, storage and people, whether requests come or not."""
    _check(machines=machines, storage=storage_usd_per_month, operations=operations_usd_per_month)
    fixed = machines * usd_per_month_per_machine + storage_usd_per_month + operations_usd_per_month
    return MonthlyCost(fixed_usd=fixed, recurring_usd=recurring_usd_per_month)


def recurring_usd_per_month(usd_per_retraining: float, days_between: float) -> float:
    """Retraining and its labels, spread over months of 365/12 days."""
    _check(usd_per_retraining=usd_per_retraining)
    _check_positive(days_between=days_between)
    return usd_per_retraining * DAYS_PER_MONTH / days_between


def machines_needed(peak_requests_per_s: float, requests_per_s_per_machine: float, spares: int = 0) -> int:
    """Whole machines for the peak at the throughput measured within the latency bound, plus spares; at least one."""
    _check(peak_requests_per_s=peak_requests_per_s, spares=spares)
    _check_positive(requests_per_s_per_machine=requests_per_s_per_machine)
    return max(1, ceil(_exact(peak_requests_per_s) / _exact(requests_per_s_per_machine))) + spares


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Tokens a day at which owning costs no more than paying by token: at first, and from then on for good.

    Between the two, each added machine can make owning dearer again. None: never.
    """

    first: float | None
    sustained: float | None


def break_even(
    usd_per_million_tokens: float,
    usd_per_month_per_unit: float,
    unit_tokens_per_day: float,
    fixed_usd_per_month: float = 0.0,
) -> BreakEven:
    """Where `fixed + unit * ceil(tokens / capacity)`, at least one unit, meets the price per token, in tokens a day.

    Exact: with a the dollars a month of one token a day, n units serve up to n*K tokens a day and break even at
    T(n) = (F + n*U) / a. `first` is T of the smallest n with T(n) <= n*K. Owning is dearer again just above (n-1)*K
    while F + n*U > a*(n-1)*K; `sustained` is T of the largest such n. Both need a*K > U: a full unit has to beat the
    price per token (where they are equal and nothing is fixed they only touch, and `sustained` is None).

    Raises BadInput for a negative price or a capacity that is not positive.
    """
    _check(usd_per_million_tokens=usd_per_million_tokens, usd_per_month_per_unit=usd_per_month_per_unit)
    _check(fixed_usd_per_month=fixed_usd_per_month)
    _check_positive(unit_tokens_per_day=unit_tokens_per_day)
    rate = _exact(usd_per_million_tokens) / MILLION * Fraction(365, 12)
    unit, fixed = _exact(usd_per_month_per_unit), _exact(fixed_usd_per_month)
    full_unit_saves = rate * _exact(unit_tokens_per_day) - unit
    if unit + fixed == 0:
        return BreakEven(0.0, 0.0)
    if full_unit_saves < 0 or rate == 0 or (full_unit_saves == 0 and fixed > 0):
        return BreakEven(None, None)
    if full_unit_saves == 0:
        return BreakEven(float(unit / rate), None)
    first = max(1, ceil(fixed / full_unit_saves))
    last_dearer = ceil((fixed + full_unit_saves + unit) / full_unit_saves) - 1
    return BreakEven(float((fixed + first * unit) / rate), float((fixed + last_dearer * unit) / rate))


def payback_months(one_off_usd: float, monthly_saving_usd: float) -> float | None:
    """Months until a saving has paid for what was spent once; None if it never does."""
    _check(one_off_usd=one_off_usd)
    if one_off_usd == 0:
        return 0.0
    return one_off_usd / monthly_saving_usd if monthly_saving_usd > 0 else None


def training_hours(parameters: float, tokens: float, flops_per_s: float, utilisation: float) -> float:
    """Hours of one device: 6 * parameters * tokens / (flops_per_s * utilisation)."""
    _check(parameters=parameters, tokens=tokens)
    _check_positive(flops_per_s=flops_per_s, utilisation=utilisation)
    if utilisation > 1:
        raise BadInput(f"utilisation: {utilisation:g} is above 1; give the share of peak that is reached, such as 0.4")
    return FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens / (flops_per_s * utilisation) / 3600


def training_usd(
    parameters: float, tokens: float, flops_per_s: float, utilisation: float, usd_per_hour: float
) -> float:
    """Dollars of one training; an upper bound for LoRA, which skips the gradients of frozen weights."""
    _check(usd_per_hour=usd_per_hour)
    return training_hours(parameters, tokens, flops_per_s, utilisation) * usd_per_hour


@dataclass(frozen=True, slots=True)
class TrueCost:
    """Fine-tuning with everything around it, dollars."""

    training_usd: float
    curation_usd: float
    evaluation_usd: float
    retraining_usd: float
    people_usd: float

    @property
    def total_usd(self) -> float:
        """Dollars, all in."""
        return self.training_usd + self.curation_usd + self.evaluation_usd + self.retraining_usd + self.people_usd


DEFAULT_MULTIPLIERS = Multipliers()


def true_cost_of_fine_tuning(training_usd: float, multipliers: Multipliers = DEFAULT_MULTIPLIERS) -> TrueCost:
    """The training and what surrounds it, part by part."""
    _check(training_usd=training_usd)
    return TrueCost(
        training_usd=training_usd,
        curation_usd=training_usd * multipliers.curation,
        evaluation_usd=training_usd * multipliers.evaluation,
        retraining_usd=training_usd * multipliers.retraining,
        people_usd=training_usd * multipliers.people,
    )


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A figure in dollars and the steps that lead to it, each a line for people."""

    usd: float
    steps: tuple[str, ...]


def from_scratch(
    parameters: float, tokens: float, flops_per_s: float = 989e12, utilisation: float = 0.4, usd_per_hour: float = 3.0
) -> Arithmetic:
    """What training from scratch (Level 5) would cost in compute alone; it is never run.

    Defaults: one H100's dense bf16 peak from its data sheet, 40% of it reached, a rented hour. Data, people, failed
    runs and evaluation come on top and are not in the figure.
    """
    hours = training_hours(parameters, tokens, flops_per_s, utilisation)
    usd = training_usd(parameters, tokens, flops_per_s, utilisation, usd_per_hour)
    flops = FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens
    return Arithmetic(
        usd,
        (
            f"operations: 6 × {parameters:.3g} parameters × {tokens:.3g} tokens = {flops:.3g}",
            f"speed of one device: {flops_per_s:.3g} a second × {utilisation:.0%} reached = "
            f"{flops_per_s * utilisation:.3g} a second",
            f"device hours: {flops:.3g} / {flops_per_s * utilisation:.3g} / 3,600 = {hours:,.0f}",
            f"compute: {hours:,.0f} hours × ${usd_per_hour:,.2f} = ${usd:,.0f}; data, people, failed runs extra",
        ),
    )


def _exact(number: float) -> Fraction:
    # By its decimal digits, so that a price written 0.1 is a tenth and a tie is a tie.
    return Fraction(Decimal(str(number)))
