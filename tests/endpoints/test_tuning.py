"""What a host says of a training, as people see it: refusals with their remedy, no key, no word of a row."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.endpoints.tuning import wire
from leastwise.endpoints.tuning.fireworks import Fireworks, TuningJob, control_url, fireworks
from leastwise.endpoints.tuning.words import LEAST_QUOTED, LEFT_OUT, Rows
from leastwise.errors import BadInput
from leastwise.use_case.model import Model
from leastwise.use_case.training import ManagedTraining
from tests.servers.tuning_server import ACCOUNT, BASE, KEY, TuningServer, tuning_server

TEXT = st.text(min_size=LEAST_QUOTED, max_size=80)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TuningServer]:
    monkeypatch.setenv("TUNING_KEY", KEY)
    with tuning_server() as running:
        yield running


def managed(server: TuningServer, account: str = ACCOUNT) -> ManagedTraining:
    base = {"uri": BASE, "venue": "managed", "base_url": server.base_url, "key_variable": "TUNING_KEY"}
    return ManagedTraining.model_validate({"base": base, "account": account, "poll_seconds": 0.01})


@pytest.fixture
def host(server: TuningServer) -> Iterator[Fireworks]:
    with fireworks(managed(server), first_pause_s=0.001) as opened:
        yield opened


@given(TEXT, st.integers(0, 40), st.text(max_size=30))
def test_whatever_is_quoted_of_a_row_is_left_out(row: str, at: int, around: str) -> None:
    rows = Rows((row,), f'{{"content": "{row}"}}\n')
    at = min(at, len(row) - LEAST_QUOTED)
    assert rows.said(f"{around}{row[at : at + LEAST_QUOTED]}{around}") == LEFT_OUT
    assert rows.said(f"no such thing: {row}") == LEFT_OUT


def test_a_short_text_is_left_out_whole_and_ordinary_words_are_shown() -> None:
    rows = Rows(("Oslo 1234", "yes"), "Oslo 1234 yes")
    assert rows.said("line 3: Oslo 1234") == LEFT_OUT
    assert rows.said("yes, the job is queued") == "yes, the job is queued"


def test_a_host_that_is_not_told_is_the_providers_own() -> None:
    base = Model(uri=BASE, venue="managed")
    assert control_url(base) == "https://api.fireworks.ai" and base.request_host == "api.fireworks.ai"


def test_jobs_are_asked_for_at_the_very_host_that_answers(server: TuningServer) -> None:
    assert control_url(managed(server).base) == server.url


def test_what_was_put_there_once_is_not_put_there_again(server: TuningServer, host: Fireworks) -> None:
    file = b'{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}\n'
    assert host.put_rows("lw-1", file, 1) == host.put_rows("lw-1", file, 1) == 11
    assert server.uploads == 1
    host.take_rows_away("lw-1")
    host.take_rows_away("lw-1")
    assert not server.data_sets


def test_an_upload_that_was_cut_off_is_done_again(server: TuningServer, host: Fireworks) -> None:
    server.data_sets["lw-1"] = {"state": "UPLOADING", "exampleCount": "1"}
    file = b'{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}\n'
    assert host.put_rows("lw-1", file, 1) == 11 and server.uploads == 1


def test_a_file_that_the_host_refuses_is_said_with_its_words(server: TuningServer, host: Fireworks) -> None:
    with pytest.raises(BadInput, match="does not hold what was announced"):
        host.put_rows("lw-1", b'{"messages": [{"role": "user", "content": "a"}]}\n', 1)


def test_a_job_of_a_name_is_there_once(server: TuningServer, host: Fireworks) -> None:
    server.data_sets["lw-1"] = {"state": "READY", "estimatedTokenCount": "1000000"}
    base = BASE.removeprefix("fireworks:")
    first = host.start("lw-1", base, {"epochs": 2, "loraRank": 16})
    again = host.start("lw-1", base, {"epochs": 2, "loraRank": 16})
    assert (first.id, again.id, len(server.jobs)) == ("lw-1", "lw-1", 1)
    server.jobs["lw-1"].states = ["RUNNING"]
    seen = host.job("lw-1")
    assert seen is not None and seen.usd == 6.0 and not seen.is_over and seen.model.endswith("/models/lw-1")
    assert host.job("lw-2") is None


def test_a_wrong_account_is_named(server: TuningServer) -> None:
    with fireworks(managed(server, "other"), first_pause_s=0.001) as host:
        assert host.job("lw-1") is None
        with pytest.raises(BadInput, match=r"training\.managed\.account"):
            host.put_rows("lw-1", b"", 0)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_an_outage_that_passes_is_waited_for_and_one_that_lasts_is_named(
    server: TuningServer, host: Fireworks, status: int
) -> None:
    server.outages = [status] * (wire.MOST_TRIES - 1)
    assert host.job("lw-1") is None
    server.outages = [status] * wire.MOST_TRIES
    with pytest.raises(ConnectionError, match="no answer in 8 tries"):
        host.job("lw-1")


def test_nobody_who_listens_is_an_outage_too(server: TuningServer) -> None:
    nowhere = managed(server).model_copy(
        update={"base": managed(server).base.model_copy(update={"base_url": "http://127.0.0.1:9/inference/v1"})}
    )
    with fireworks(nowhere, first_pause_s=0.001) as host, pytest.raises(ConnectionError, match="ConnectError"):
        host.job("lw-1")


@pytest.mark.parametrize(
    ("state", "is_done", "is_over"),
    [
        ("COMPLETED", True, True),
        ("EARLY_STOPPED", True, True),
        ("FAILED", False, True),
        ("CANCELLED", False, True),
        ("EXPIRED", False, True),
        ("DELETING", False, True),
        ("PAUSED", False, False),
        ("CANCELLING", False, False),
        ("A_STATE_OF_NEXT_YEAR", False, False),
    ],
)
def test_only_what_surely_ended_is_over(state: str, is_done: bool, is_over: bool) -> None:
    job = TuningJob("lw-1", state)
    assert (job.is_done, job.is_over) == (is_done, is_over)


def test_a_cost_in_another_currency_or_of_nothing_is_not_taken_for_dollars(
    server: TuningServer, host: Fireworks
) -> None:
    server.data_sets["lw-1"] = {"state": "READY", "estimatedTokenCount": "10"}
    server.tells_cost, server.states = False, ["RUNNING"]
    host.start("lw-1", BASE.removeprefix("fireworks:"), {"epochs": 1})
    for told in (
        {},
        {"currencyCode": "USD"},
        {"currencyCode": "EUR", "units": "3"},
        {"currencyCode": "USD", "units": "?"},
    ):
        server.jobs["lw-1"].body["estimatedCost"] = told
        seen = host.job("lw-1")
        assert seen is not None and seen.usd is None
