"""From a file to a first verdict by two commands and no edit: what `prepare` wrote is climbed by a real server."""

import json
import random
from pathlib import Path

import mlflow
import pytest

from flows.customize import customize
from leastwise.rows.preparing import models_at_hand
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources.plain import Columns
from leastwise.rows.use_case_file import Overrides, load
from tasks.preparing.prepare import prepare_use_case

ROWS = 160  # of which the gate decides a margin of .3; few, for each call takes most of a second
CITIES = ["Oslo", "Rome", "Paris", "Berlin"]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the draft names the embedded model."""
    for names in models_at_hand.PROVIDERS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_records_as_json_lines_go_to_a_first_verdict_with_one_command_and_no_edit(
    tmp_path: Path, home_with_models: Path, prefect_api: str
) -> None:
    rng = random.Random(1)
    lines = []
    for n in range(ROWS):
        street, city = f"{rng.choice('ABCDEFG')}{n}street {rng.randint(1, 99)}", rng.choice(CITIES)
        lines.append(json.dumps({"input": f"Send it to {street}, {city}", "output": {"street": street, "city": city}}))
    source, out = tmp_path / "Meine Adressen ä.jsonl", tmp_path / "addresses.yaml"
    source.write_text("\n".join(lines))
    prepare_use_case.fn([str(source)], "addresses", Columns(), Wanted(margin=0.3), str(out))
    assert load(str(out)).task.kind == "extraction"
    ended = customize(str(out), Overrides(last_stage="prompt"))
    assert ended.outcome in ("prompt", "none", "undecided"), ended.reason
    client = mlflow.MlflowClient(f"sqlite:///{home_with_models}/mlflow.db")
    experiment = client.get_experiment_by_name("addresses")
    assert experiment is not None
    (stage,) = client.search_runs([experiment.experiment_id], "tags.`leastwise.stage` = 'prompt'", max_results=1)
    assert stage.data.tags["leastwise.verdict"] in ("PASS", "FAIL", "UNDECIDED")
    assert stage.data.metrics["quality.n"] > 0
