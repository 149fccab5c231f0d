"""Which runs hold a verdict: all there are, however many."""

from pathlib import Path

import pytest

from leastwise.record import client as clients
from leastwise.record.client import connect, experiment_id
from leastwise.record.judged_runs import ended_climbs, judged_runs
from leastwise.record.registry import Registry
from leastwise.record.run import KIND, OUTCOME, REASON, VERDICT


def test_an_experiment_is_read_to_its_last_run_however_many_there_are(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect()
    where = experiment_id(client, "many")
    for _ in range(5):
        client.create_run(where, tags={KIND: "stage", VERDICT: "FAIL"})
    for outcome in ("none", "", "prompt", "rag"):
        client.create_run(where, tags={KIND: "ladder", OUTCOME: outcome})
    for number in range(1, 4):
        log = {"event": "promote", "number": str(number), "before": "", "after": str(number)}
        tags = {f"leastwise.{name}": value for name, value in log.items()}
        client.create_run(where, tags={KIND: "promotion", REASON: "", **tags})
    monkeypatch.setattr(clients, "MOST_RUNS_A_PAGE", 2)
    assert len(list(judged_runs(client, "many"))) == 5
    assert [climb.tag(OUTCOME) for climb in ended_climbs(client, "many")] == ["none", "prompt", "rag"]
    assert [move.after for move in Registry(client, "many").log()] == ["1", "2", "3"]
