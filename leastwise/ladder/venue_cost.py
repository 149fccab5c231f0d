"""What a request costs in its venue: the price of a token, and its share of what is paid by the month.

The arithmetic of machines is in `leastwise.money.economics`; nothing is spent here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leastwise.ladder.candidate import Candidate
from leastwise.money import economics
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price

if TYPE_CHECKING:
    from leastwise.answering.workspace import Workspace


def price_of(work: Workspace, candidate: Candidate) -> Price | None:
    """Dollars per million tokens of this candidate in its venue; None where machines are paid instead."""
    if candidate.venue == "self_host":
        return None
    if candidate.venue == "managed" and candidate.weights and work.use_case.hosting.managed_price:
        return work.use_case.hosting.managed_price
    return work.price(candidate.model)


def fixed_usd_per_request(use_case: UseCase, venue: str, requests_per_s_per_machine: float | None) -> float:
    """The part of the bill that does not depend on tokens, spread over the month's requests."""
    hosting, month = use_case.hosting, use_case.traffic.requests_per_month
    recurring = retraining_usd_per_month(use_case)
    if venue == "api":
        return 0.0
    if venue == "managed":
        return (hosting.managed_minimum_usd_per_month + recurring) / month
    machines = economics.machines_needed(
        use_case.traffic.peak_requests_per_s, requests_per_s_per_machine or 1.0, hosting.spare_machines
    )
    fixed = machines * hosting.usd_per_month_per_machine
    return (fixed + hosting.storage_usd_per_month + hosting.operations_usd_per_month + recurring) / month


def retraining_usd_per_month(use_case: UseCase) -> float:
    """Labels bought for retraining, spread over months of 365/12 days."""
    training = use_case.training
    labels = training.labels_per_retraining * training.usd_per_label
    return labels * (365 / 12) / training.retrain_every_days


def worst_case_usd_of(work: Workspace, candidate: Candidate, price: Price | None) -> float:
    if price is None:
        return 0.0
    context, output = work.model(candidate.model).context_tokens, work.use_case.traffic.output_tokens
    return price.worst_case_usd(context - output, output)
