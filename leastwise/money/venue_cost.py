"""What of a request's cost does not depend on its tokens: its share of machines, minimums and retraining paid by the
month.

The arithmetic of machines is in `leastwise.money.economics`; nothing is spent here.
"""

from __future__ import annotations

from leastwise.money.economics import machines_needed, monthly_self_host, recurring_usd_per_month
from leastwise.use_case import UseCase
from leastwise.use_case.model import Venue


def fixed_usd_per_request(use_case: UseCase, venue: Venue, requests_per_s_per_machine: float | None) -> float:
    """The part of the bill that does not depend on tokens, spread over the month's requests; a machine of no known
    speed answers one request a second.
    """
    hosting, month = use_case.hosting, use_case.traffic.requests_per_month
    recurring = retraining_usd_per_month(use_case)
    if venue == "api":
        return 0.0
    if venue == "managed":
        return (hosting.managed_minimum_usd_per_month + recurring) / month
    speed = requests_per_s_per_machine or 1.0
    machines = machines_needed(use_case.traffic.peak_requests_per_s, speed, hosting.spare_machines)
    bill = monthly_self_host(
        machines,
        hosting.usd_per_month_per_machine,
        hosting.storage_usd_per_month,
        hosting.operations_usd_per_month,
        recurring,
    )
    return bill.total_usd / month


def retraining_usd_per_month(use_case: UseCase) -> float:
    """Labels bought for retraining, spread over the days between; dollars a month."""
    training = use_case.training
    return recurring_usd_per_month(training.labels_per_retraining * training.usd_per_label, training.retrain_every_days)
