"""What of a request's cost does not depend on its tokens: its share of machines, minimums and retraining paid by the
month.

The arithmetic of machines is in `leastwise.money.economics`; nothing is spent here.
"""

from __future__ import annotations

from leastwise.money.economics import machines_needed, monthly_self_host, recurring_usd_per_month
from leastwise.use_case import UseCase
from leastwise.use_case.model import Venue


def fixed_usd_per_request(
    use_case: UseCase,
    venue: Venue,
    requests_per_s_per_machine: float | None = None,
    usd_per_retraining: float | None = None,
) -> float:
    """The part of the bill that does not depend on tokens, spread over the month's requests, dollars.

    `requests_per_s_per_machine`: what an own machine answers within the latency bound, measured; needed for the venue
    self_host. `usd_per_retraining`: the compute of training such weights once; None: nothing is trained.
    """
    hosting, month = use_case.hosting, use_case.traffic.requests_per_month
    recurring = 0.0 if usd_per_retraining is None else retraining_usd_per_month(use_case, usd_per_retraining)
    if venue == "api":
        return recurring / month
    if venue == "managed":
        return (hosting.managed_minimum_usd_per_month + recurring) / month
    if requests_per_s_per_machine is None:
        raise ValueError("how many machines an own endpoint needs is not known before its capacity was measured")
    machines = machines_needed(use_case.traffic.peak_requests_per_s, requests_per_s_per_machine, hosting.spare_machines)
    bill = monthly_self_host(
        machines,
        hosting.usd_per_month_per_machine,
        hosting.storage_usd_per_month,
        hosting.operations_usd_per_month,
        recurring,
    )
    return bill.total_usd / month


def retraining_usd_per_month(use_case: UseCase, compute_usd: float = 0.0) -> float:
    """Labels bought for a retraining and its compute, spread over the days between; dollars a month."""
    training = use_case.training
    usd = training.labels_per_retraining * training.usd_per_label + compute_usd
    return recurring_usd_per_month(usd, training.retrain_every_days)
