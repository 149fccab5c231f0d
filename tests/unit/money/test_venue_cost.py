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
    [("api", None, 0.0), ("managed", None, 50 + 30), ("self_host", None, 5 * 300 + 100 + 30), ("self_host", 2.0, 1030)],
)
def test_what_is_paid_by_the_month_is_shared_by_its_requests(
    venue: Venue, speed: float | None, usd_a_month: float
) -> None:
    labels = {"labels_per_retraining": 100, "usd_per_label": 0.3, "retrain_every_days": 365}
    busy = use_case(hosting=HOSTING, training=labels, traffic={"requests_per_month": 1000, "peak_requests_per_s": 4.0})
    recurring = retraining_usd_per_month(busy)
    assert recurring == pytest.approx(30 / 12)
    expected = usd_a_month - 30 + recurring if usd_a_month else 0.0
    assert fixed_usd_per_request(busy, venue, speed) == pytest.approx(expected / 1000)
