"""What a request costs in its venue: the price of a token, and its share of what is paid by the month.

The arithmetic of machines is in `leastwise.money.economics`; no price is looked up and nothing is spent here.
"""

from __future__ import annotations

from collections.abc import Callable

from leastwise.ladder.candidate import Candidate
from leastwise.money.economics import machines_needed, monthly_self_host, recurring_usd_per_month
from leastwise.use_case import UseCase
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Price


def price_of(use_case: UseCase, candidate: Candidate, price: Callable[[str], Price]) -> Price | None:
    """Dollars per million tokens of this candidate in its venue; None where machines are paid instead.

    `price` looks a model's URI up and raises UnknownPrice where nobody has priced it.
    """
    if candidate.venue == "self_host":
        return None
    if candidate.venue == "managed" and candidate.weights and use_case.hosting.managed_price:
        return use_case.hosting.managed_price
    return price(candidate.model)


def fixed_usd_per_request(use_case: UseCase, venue: Venue, requests_per_s_per_machine: float | None) -> float:
    """The part of the bill that does not depend on tokens, spread over the month's requests; dollars a request.

    Where machines are paid, as many as the peak hour takes at that speed; None: one request a second each.
    """
    hosting, traffic = use_case.hosting, use_case.traffic
    if venue == "api":
        return 0.0
    recurring = retraining_usd_per_month(use_case)
    if venue == "managed":
        return (hosting.managed_minimum_usd_per_month + recurring) / traffic.requests_per_month
    machines = machines_needed(traffic.peak_requests_per_s, requests_per_s_per_machine or 1.0, hosting.spare_machines)
    bill = monthly_self_host(
        machines,
        hosting.usd_per_month_per_machine,
        hosting.storage_usd_per_month,
        hosting.operations_usd_per_month,
        recurring,
    )
    return bill.total_usd / traffic.requests_per_month


def retraining_usd_per_month(use_case: UseCase) -> float:
    """Labels bought for retraining, spread over the days between; dollars a month."""
    training = use_case.training
    return recurring_usd_per_month(training.labels_per_retraining * training.usd_per_label, training.retrain_every_days)


def worst_case_usd_of(use_case: UseCase, price: Price | None, context_tokens: int) -> float:
    """The most one request can cost at this price (rule 6): a full context, as many tokens of it out as are allowed."""
    if price is None:
        return 0.0
    output = use_case.traffic.output_tokens
    return price.worst_case_usd(context_tokens - output, output)
