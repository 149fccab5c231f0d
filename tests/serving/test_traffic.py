"""What is kept of requests: rows that drift and replays read, traces with the id that went out; both masked."""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from leastwise.record.client import connect
from leastwise.rows import tables
from leastwise.serving.traffic import COLUMNS, Allowance
from leastwise.stores.tables import table_files
from leastwise.use_case.data import Data
from tests.serving.endpoints import Aliases, running_endpoint, wait_for
from tests.serving.relay import Engine, Relay, running_engine

MAIL = "write to jane.doe@example.com"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


def test_a_row_is_kept_of_every_answered_request_and_read_as_a_window_of_recent_inputs(
    engine: Engine, home: Path
) -> None:
    with running_endpoint(Aliases(), mask=("email",), traffic_log=str(home / "traffic"), poll_s=1) as endpoint:
        named = endpoint.chat(MAIL, headers={"x-request-id": "mine-1"})
        assert named.headers["x-request-id"] == "mine-1" and "jane.doe" in named.text
        assert endpoint.chat("fail").status_code == 502
        assert endpoint.chat("x" * 60_000).status_code == 400
        body = {"inputs": ["one", "two"]}
        endpoint.client.post(f"{endpoint.url}/invocations", json=body, headers={"x-request-id": "both"})
        wait_for(lambda: 'leastwise_kept_total{outcome="written",what="rows"} 4.0' in endpoint.get("/metrics").text)
    folder = home / "traffic" / "toy"
    kept = table_files.read_table(folder)
    assert list(kept.columns) == list(COLUMNS)
    assert list(kept["text"]) == ["write to [email]", "fail", "one", "two"]
    assert list(kept["status"]) == [200, 502, 200, 200]
    assert kept["answer"][0] == "1: write to [email]" and pd.isna(kept["answer"][1])
    assert kept["id"][0].startswith("mine-1-") and kept["id"].is_unique
    assert [each.rpartition("-")[2] for each in sorted(kept["id"][2:])] == ["1", "2"]
    first = kept.iloc[0]
    assert (first["version"], first["alias"], first["candidate"]) == ("1", "champion", "key-1")
    assert (first["usd"], first["input_tokens"], first["cached_tokens"]) == (0.001, 7, 2)
    assert abs(first["time"] - time.time()) < 60 and 0 < first["latency_ms"] < 10_000
    (window,) = tables.window(str(folder), Data(gate="gate.csv", mask=("email",)), "window")
    assert list(window["text"]) == list(kept["text"]) and list(window["id"]) == list(kept["id"])
    assert "jane.doe" not in "".join(path.read_text(errors="replace") for path in home.rglob("*.jsonl"))


def test_what_a_version_masks_is_kept_of_no_request_though_the_endpoint_was_started_for_another(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "mask", ("email",))
    with running_endpoint(Aliases(), mask=("card",), traffic_log=str(home / "traffic")) as endpoint:
        endpoint.chat(MAIL)
        endpoint.chat("card 4111 1111 1111 1111")
    kept = table_files.read_table(home / "traffic" / "toy")
    assert list(kept["text"]) == ["write to [email]", "card [card]"]


def test_the_label_an_answer_means_is_kept_and_parts_of_before_it_was_are_read_with_it(
    engine: Engine, home: Path
) -> None:
    with running_endpoint(Aliases(), traffic_log=str(home / "traffic")) as endpoint:
        for text in ("yes, please", "a", "fail"):
            endpoint.chat(text)
    folder = home / "traffic" / "toy"
    kept = table_files.read_table(folder)
    assert kept["predicted_label"].fillna("").tolist() == ["yes", "", ""]
    older = folder / "date=2026-01-01"
    older.mkdir()
    kept.drop(columns="predicted_label").to_parquet(older / "0.parquet", index=False)
    both = table_files.read_table(folder)
    assert both["predicted_label"].fillna("").tolist() == ["", "", "", "yes", "", ""]
    window = pd.concat(tables.window(str(folder), Data(gate="gate.csv"), "window"))
    assert window["predicted_label"].dropna().tolist() == ["yes"] and len(window) == 6
    assert "label" not in COLUMNS, "what the champion said must never be read as an expected answer"


def test_a_caller_that_sends_an_id_twice_gets_it_back_and_makes_two_rows_of_their_own(
    engine: Engine, home: Path
) -> None:
    with running_endpoint(Aliases(), traffic_log=str(home / "traffic")) as endpoint:
        for _ in range(2):
            assert endpoint.chat("a", headers={"x-request-id": "again"}).headers["x-request-id"] == "again"
        unkept = endpoint.chat("a", headers={"x-request-id": "a b\tc" * 100}).headers["x-request-id"]
        assert len(unkept) == 32
    kept = table_files.read_table(home / "traffic" / "toy")
    assert len(kept) == 3 and kept["id"].is_unique


def test_what_a_shadow_said_is_kept_apart_so_that_no_request_counts_twice(engine: Engine, home: Path) -> None:
    aliases = Aliases({"champion": "1", "challenger": "2"})
    with running_endpoint(aliases, traffic_log=str(home / "traffic"), shadow_share=1.0) as endpoint:
        wait_for(lambda: endpoint.service.follower.versions.get("challenger") == "2")
        endpoint.answer("hello")
        wait_for(lambda: 'leastwise_shadows_total{outcome="answered"} 1.0' in endpoint.get("/metrics").text)
    kept = table_files.read_table(home / "traffic" / "toy")
    shadow = table_files.read_table(home / "traffic" / "toy-shadow")
    assert (list(kept["answer"]), list(shadow["answer"])) == (["1: hello"], ["2: hello"])
    assert list(shadow["id"]) == list(kept["id"]) and list(shadow["alias"]) == ["shadow"]


def test_a_request_becomes_a_trace_whose_id_goes_out_and_feedback_attaches(engine: Engine, home: Path) -> None:
    import mlflow

    with running_endpoint(Aliases(), mask=("email",), trace_rate=1.0, most_traces_per_s=1_000) as endpoint:
        client = connect()
        version_of(client, "toy")
        answered = endpoint.chat(MAIL, headers={"x-request-id": "mine-2"})
        failed = endpoint.chat("fail")
        trace_id = answered.headers["x-trace-id"]
        assert failed.headers["x-trace-id"] != trace_id
        wait_for(lambda: 'leastwise_kept_total{outcome="written",what="traces"} 2.0' in endpoint.get("/metrics").text)
    where = client.get_experiment_by_name("toy-live")
    assert where is not None and failed.status_code == 502
    mlflow.log_feedback(trace_id=trace_id, name="right", value=True)
    traces = {each.info.trace_id: each for each in mlflow.search_traces([where.experiment_id], return_type="list")}
    assert len(traces) == 2
    trace = traces[trace_id]
    assert trace.info.client_request_id.startswith("mine-2-") and trace.info.state == "OK"
    assert trace.data.spans[0].inputs == {"text": "write to [email]"}
    assert trace.data.spans[0].outputs == "1: write to [email]"
    assert trace.info.tags["leastwise.version"] == "1" and trace.info.tags["leastwise.alias"] == "champion"
    assert trace.info.token_usage == {
        "input_tokens": 7,
        "output_tokens": 1,
        "total_tokens": 8,
        "cache_read_input_tokens": 2,
    }
    assert {each.info.state for each in traces.values()} == {"OK", "ERROR"}
    assert "jane.doe" not in str([each.to_dict() for each in traces.values()])


def test_a_request_that_no_database_takes_and_a_version_that_is_gone_keep_no_other_trace_from_being_written(
    engine: Engine, home: Path
) -> None:
    with running_endpoint(Aliases(), trace_rate=1.0, most_traces_per_s=1_000) as endpoint:
        connect().create_registered_model("toy")  # its version 1 is deleted
        ids = [endpoint.chat(text).headers["x-trace-id"] for text in ("a", "half", "b\0c", "d")]
        wait_for(lambda: 'leastwise_kept_total{outcome="written",what="traces"} 4.0' in endpoint.get("/metrics").text)
    client = connect()
    where = client.get_experiment_by_name("toy-live")
    assert where is not None
    traces = {each.info.trace_id: each for each in client.search_traces(locations=[where.experiment_id])}
    assert set(ids) == set(traces)
    assert traces[ids[2]].data.spans[0].inputs == {"text": "b\ufffdc"}
    assert traces[ids[1]].info.response_preview.endswith("?")


def test_personal_data_in_the_id_of_a_request_is_kept_nowhere_and_ids_stay_apart(engine: Engine, home: Path) -> None:
    card, number = "4111-1111-1111-1111", "219-09-9999"
    settings = {"trace_rate": 1.0, "most_traces_per_s": 1_000, "traffic_log": str(home / "traffic")}
    with running_endpoint(Aliases(), mask=("card", "us_ssn"), **settings) as endpoint:
        version_of(connect(), "toy")
        for given in (card, number, f"ssn:{number}"):
            assert endpoint.chat("a", headers={"x-request-id": given}).headers["x-request-id"] == given
        body = {"inputs": ["one", "two"]}
        endpoint.client.post(f"{endpoint.url}/invocations", json=body, headers={"x-request-id": card})
        wait_for(lambda: 'leastwise_kept_total{outcome="written",what="traces"} 5.0' in endpoint.get("/metrics").text)
    kept = table_files.read_table(home / "traffic" / "toy")
    assert len(kept) == 5 and kept["id"].is_unique
    assert [each.rpartition("-")[0] for each in kept["id"][:3]] == ["[card]", "[us_ssn]", "ssn:[us_ssn]"]
    client = connect()
    where = client.get_experiment_by_name("toy-live")
    assert where is not None
    said = str([each.to_dict() for each in client.search_traces(locations=[where.experiment_id])])
    assert said.count("[card]") >= 3 and card not in said and number not in said


def test_no_more_traces_a_second_are_written_than_may_be_and_the_rest_promises_none(engine: Engine, home: Path) -> None:
    with running_endpoint(Aliases(), trace_rate=1.0, most_traces_per_s=1.0) as endpoint:
        version_of(connect(), "toy")
        told = [endpoint.chat("a").headers.get("x-trace-id") for _ in range(10)]
    assert 1 <= sum(each is not None for each in told) <= 4
    with running_endpoint(Aliases(), trace_rate=0.0) as endpoint:
        assert "x-trace-id" not in endpoint.chat("a").headers


def test_while_mlflow_is_away_requests_are_answered_and_lost_traces_counted(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("leastwise.record.live.live_traces.TRIES", 1)
    with running_endpoint(Aliases(), trace_rate=1.0) as endpoint:
        started = time.monotonic()
        assert endpoint.answer("a") == "1: a" and time.monotonic() - started < 1
        wait_for(lambda: 'leastwise_kept_total{outcome="dropped",what="traces"} 1.0' in endpoint.get("/metrics").text)


def test_an_allowance_lets_a_seconds_worth_through_and_then_as_many_as_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("leastwise.serving.traffic.time.monotonic", lambda: now[0])
    allowance = Allowance(2.0)
    assert [allowance.takes_one() for _ in range(3)] == [True, True, False]
    now[0] += 0.5
    assert [allowance.takes_one() for _ in range(2)] == [True, False]
    now[0] += 100
    assert [allowance.takes_one() for _ in range(3)] == [True, True, False]


def version_of(client: object, name: str) -> None:
    """A registered version 1, which a trace is linked to."""
    from leastwise.record.registry import Registry

    Registry(client, name)._create_model()
    client.create_model_version(name, source="file:///nowhere")
