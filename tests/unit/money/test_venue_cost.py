"""What is paid by the month is shared by the month's requests: a host's minimum, whole machines of one's own,
retraining.
"""

import pytest

from leastwise.money.venue_cost import fixed_usd_per_request, retraining_usd_per_month
from leastwise.use_case.model import Venue
from tests.unit.use_cases import use_case

HOSTING = {
    "usd_per_month_per_machine": 300.0,
    "spare_machines": 1,
    "storage_usd_per_month": 10.0,
    "operations_usd_per_month": 90.0,
    "managed_minimum_usd_per_month": 50.0,
}


@pytest.mark.parametrize(
    ("venue", "speed", "usd_a_month"),
    [("api", None, 0), ("managed", None, 50), ("self_host", 1.0, 5 * 300 + 100), ("self_host", 2.0, 3 * 300 + 100)],
)
@pytest.mark.parametrize("compute", [None, 0.0, 20.0])
def test_what_is_paid_by_the_month_is_shared_by_its_requests(
    venue: Venue, speed: float | None, usd_a_month: float, compute: float | None
) -> None:
    labels = {"labels_per_retraining": 100, "usd_per_label": 0.3, "retrain_every_days": 365}
    busy = use_case(hosting=HOSTING, training=labels, traffic={"requests_per_month": 1000, "peak_requests_per_s": 4.0})
    recurring = 0.0 if compute is None else retraining_usd_per_month(busy, compute)
    assert compute is None or recurring == pytest.approx((30 + compute) / 12)
    assert fixed_usd_per_request(busy, venue, speed, compute) == pytest.approx((usd_a_month + recurring) / 1000)


@pytest.mark.parametrize(("speed", "usd_per_1k"), [(0.2, 4.5), (1.0, 0.9), (30.0, 0.3)])
def test_own_machines_are_as_many_as_their_measured_capacity_needs(speed: float, usd_per_1k: float) -> None:
    hosting = {"usd_per_month_per_machine": 300.0}
    busy = use_case(hosting=hosting, traffic={"requests_per_month": 1_000_000, "peak_requests_per_s": 3.0})
    assert 1000 * fixed_usd_per_request(busy, "self_host", speed) == pytest.approx(usd_per_1k)


def test_own_machines_of_unknown_capacity_have_no_cost() -> None:
    with pytest.raises(ValueError, match="before its capacity was measured"):
        fixed_usd_per_request(use_case(hosting=HOSTING), "self_host")
