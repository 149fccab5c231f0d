"""What real endpoints say of usage, refusals and faults: counted as billed, bought once, never taken for nothing."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from leastwise.endpoints import reading
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target, most_usage, usd_worst
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.use_case.price import Price, Usage
from tests.servers.hostile_server import HABITS, HostileServer, hostile_server

LABELS = ("alpha", "beta")
PRICE = Price(input=1.0, cached=0.1, cache_write=1.25, output=4.0)


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _counted_anew(hostile: HostileServer) -> None:
    hostile.forget()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    with ResponseStore(tmp_path / "answers.db") as opened:
        yield opened


def request(row: int = 0, **options: object) -> Request:
    messages = (Message("system", "Name it."), Message("user", f"row {row} key=beta it is"))
    return Request(str(row), messages, **{"max_tokens": 6, **options})  # type: ignore[arg-type]


class Client:
    """Asks one habit, from the same store and ledger at every call, as runs of one climb do."""

    def __init__(self, hostile: HostileServer, store: ResponseStore, ledger: Ledger) -> None:
        self.hostile, self.store, self.ledger = hostile, store, ledger

    @contextmanager
    def opened(
        self, habit: str, cap_usd: float = 1.0, price: Price = PRICE, place: str = "api at 8"
    ) -> Iterator[Asker]:
        target = Target("openai:m", base_url=self.hostile.base_url(habit), api_key="k")
        meter = Meter(self.ledger, Caps("c", cap_usd), "triage", "prompt")
        with Asker(
            target, store=self.store, price=price.usd, meter=meter, timeout_s=5.0, attempts=3, place=place
        ) as asker:
            yield asker

    def ask(self, habit: str, *requests: Request) -> list[Reply]:
        with self.opened(habit) as asker:
            return asker.ask(requests or [request()])


@pytest.fixture
def client(hostile: HostileServer, store: ResponseStore, ledger: Ledger) -> Client:
    return Client(hostile, store, ledger)


# -- usage ------------------------------------------------------------------------------------------------------------

KNOWN = {
    "good": Usage(50, 0, 0, 3),
    "cached_beyond_prompt": Usage(912, 900, 0, 3),
    "cached_within_prompt": Usage(950, 900, 0, 3),
    "null_details": Usage(50, 0, 0, 3),
    "reasoning_within": Usage(50, 0, 0, 30),
    "reasoning_apart": Usage(50, 0, 0, 30),
    "float_usage": Usage(50, 0, 0, 3),
    "fraction_usage": Usage(51, 0, 0, 3),
    "digits_usage": Usage(50, 0, 0, 3),
    "anthropic_fields": Usage(50, 0, 0, 3),
    "hits_and_misses": Usage(50, 40, 0, 3),
    "cache_writes": Usage(950, 600, 300, 3),
}
UNKNOWN = (
    "null_usage",
    "absent_usage",
    "zero_usage",
    "empty_usage",
    "negative_usage",
    "words_usage",
    "total_only",
    "huge_usage",
    "beyond_int64",
    "list_usage",
    "no_completion_count",
)


@pytest.mark.parametrize("habit", KNOWN)
def test_usage_is_counted_once_and_as_billed_however_it_is_reported(
    client: Client, hostile: HostileServer, ledger: Ledger, habit: str
) -> None:
    (reply,) = client.ask(habit)
    usage = KNOWN[habit]
    assert (reply.text, reply.error, reply.usage_known, hostile.calls(habit)) == ("beta", None, True, 1)
    told = (reply.input_tokens, reply.cached_tokens, reply.cache_write_tokens, reply.output_tokens)
    assert told == (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.output_tokens)
    assert ledger.spent("c") == pytest.approx(PRICE.usd(usage), abs=1e-9) and ledger.counts("c") == {"settled": 1}


@pytest.mark.parametrize("habit", UNKNOWN)
def test_a_usage_that_is_not_told_is_the_most_it_can_be_and_never_nothing(
    client: Client, hostile: HostileServer, ledger: Ledger, habit: str
) -> None:
    (reply,) = client.ask(habit)
    worst = usd_worst(request(), PRICE.usd)
    assert (reply.text, reply.error, reply.usage_known) == ("beta", None, False)
    assert reply.usd == pytest.approx(worst) and reply.input_tokens == most_usage(request()).input_tokens
    assert ledger.spent("c") == pytest.approx(worst, abs=1e-9) and ledger.counts("c") == {"unknown": 1}
    (again,) = client.ask(habit)
    assert again == replace(reply, from_store=True) and hostile.calls(habit) == 1


def test_an_answer_that_an_earlier_version_kept_as_free_is_priced_at_its_most(
    client: Client, store: ResponseStore
) -> None:
    client.ask("good")
    store._connection.execute("UPDATE answers SET input_tokens = 0, output_tokens = 0")
    (reply,) = client.ask("good")
    assert reply.from_store and not reply.usage_known and reply.usd == pytest.approx(usd_worst(request(), PRICE.usd))


def test_dollars_are_todays_price_of_the_usage_that_was_stored(client: Client) -> None:
    client.ask("good")
    with client.opened("good", price=Price(input=10.0, output=40.0)) as asker:
        (reply,) = asker.ask([request()])
    assert reply.from_store and reply.usd == pytest.approx((50 * 10 + 3 * 40) / 1e6)


@pytest.mark.parametrize("habit", ["nan_logprobs", "null_logprob", "positive_logprob"])
def test_log_probabilities_that_are_none_give_no_confidence_and_the_answer_stays(
    client: Client, hostile: HostileServer, habit: str
) -> None:
    (reply,) = client.ask(habit, request(wants_confidence=True))
    assert (reply.text, reply.error, reply.confidence, hostile.calls(habit)) == ("beta", None, None, 1)


# -- shapes of an answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "text", "finish_reason"),
    [
        ("parts", "beta", "stop"),
        ("tool_call", "beta", "tool_call"),
        ("null_finish", "beta", "stop"),
        ("eos_finish", "beta", "stop"),
        ("object_content", "beta", "stop"),
        ("number_content", "42", "stop"),
        ("null_label", '{"label": null}', "stop"),
        ("lone_surrogate", "half \ufffd", "stop"),
        ("wrong", "nonsense", "stop"),
    ],
)
def test_an_answer_of_any_shape_is_scored_and_bought_once(
    client: Client, hostile: HostileServer, ledger: Ledger, habit: str, text: str, finish_reason: str
) -> None:
    (reply,) = client.ask(habit, request(choices=LABELS))
    assert (reply.text, reply.error, reply.finish_reason) == (text, None, finish_reason)
    assert client.ask(habit, request(choices=LABELS)) == [replace(reply, from_store=True)]
    assert hostile.calls(habit) == 1 and ledger.counts("c") == {"settled": 1}


def test_what_was_paid_and_cannot_be_read_is_kept_as_received_and_lost_once(
    client: Client, hostile: HostileServer, store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object, **__: object) -> None:
        raise TypeError("a defect of ours")

    monkeypatch.setattr(reading, "answer_of", defective)
    first, again = client.ask("good")[0], client.ask("good")[0]
    assert first.error and again.error and first.text == "" and hostile.calls("good") == 1
    (kept,) = store._connection.execute("SELECT raw FROM answers").fetchone()
    assert "a defect of ours" in kept and '"content": "beta"' in kept


# -- refusals of content ----------------------------------------------------------------------------------------------

REFUSED_UNPAID = (
    "azure_filter",
    "dashscope_filter",
    "openai_policy",
    "openrouter_moderation",
    "zhipu_filter",
    "deepseek_filter",
)
REFUSED = (*REFUSED_UNPAID, "refusal", "filtered_finish", "filter_200", "blocked_no_choices")


@pytest.mark.parametrize("habit", REFUSED)
def test_a_providers_refusal_of_content_is_the_models_answer_whoevers_it_is(
    client: Client, hostile: HostileServer, ledger: Ledger, habit: str
) -> None:
    (reply,) = client.ask(habit)
    assert (reply.text, reply.error, reply.finish_reason) == ("", None, "content_filter")
    assert client.ask(habit) == [replace(reply, from_store=True)] and hostile.calls(habit) == 1
    assert (ledger.spent("c") == 0) == (habit in REFUSED_UNPAID), "what came with an error's status is not billed"


def test_rows_that_are_refused_stand_beside_those_that_are_answered(client: Client, hostile: HostileServer) -> None:
    replies = client.ask("some_filtered", *(request(row) for row in range(40)))
    refused = [reply for reply in replies if reply.finish_reason == "content_filter"]
    assert 0 < len(refused) < 20 and {reply.text for reply in replies} == {"", "beta"}
    assert not any(reply.error for reply in replies) and hostile.calls("some_filtered") == 40


# -- what the transport did -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", ["error_200", "no_choices", "html_200", "early_425", "odd_retry_after"])
def test_what_is_no_answer_at_all_is_tried_again(client: Client, hostile: HostileServer, habit: str) -> None:
    (reply,) = client.ask(habit)
    assert (reply.text, reply.error, hostile.calls(habit)) == ("beta", None, 2)


@pytest.mark.parametrize("habit", ["always_error_200", "always_503"])
def test_what_never_answers_is_lost_after_its_attempts_and_not_kept(
    client: Client, hostile: HostileServer, store: ResponseStore, habit: str
) -> None:
    (reply,) = client.ask(habit)
    assert reply.error and math.isnan(reply.latency_ms) and hostile.calls(habit) == 3 and len(store) == 0


def test_a_retry_after_that_is_a_date_is_waited_for(client: Client, hostile: HostileServer) -> None:
    started = time.monotonic()
    (reply,) = client.ask("dated_429")
    assert reply.text == "beta" and hostile.calls("dated_429") == 2 and time.monotonic() - started > 0.8


def test_who_says_to_come_back_in_an_hour_is_not_waited_for_and_not_asked_row_by_row(
    client: Client, hostile: HostileServer
) -> None:
    started = time.monotonic()
    with client.opened("hour_429") as asker:
        replies = asker.ask([request(row) for row in range(60)])
    assert all(reply.error for reply in replies) and time.monotonic() - started < 10
    assert hostile.calls("hour_429") <= 16 and "run again then" in str(replies[-1].error)


@pytest.mark.parametrize(
    ("habit", "remedy"),
    [
        ("bad_key", "set a valid one"),
        ("forbidden", "no leave"),
        ("unknown_model", "check the model's name"),
        ("unpaid", "top it up"),
        ("quota_429", "top it up"),
    ],
)
def test_what_a_person_must_put_right_is_said_with_its_remedy_and_stops_the_asking(
    client: Client, hostile: HostileServer, ledger: Ledger, habit: str, remedy: str
) -> None:
    with pytest.raises(BadInput, match=remedy) as said:
        client.ask(habit, *(request(row) for row in range(60)))
    assert hostile.calls(habit) <= 8 and ledger.spent("c") == 0 and ledger.reserved("c") == 0
    assert "openai:m at http://127.0.0.1" in str(said.value) and "0123456789abcdef" not in str(said.value)


def test_a_prompt_longer_than_the_model_takes_names_context_tokens(client: Client, hostile: HostileServer) -> None:
    long = replace(request(1), messages=(Message("user", "much " * 100),))
    with pytest.raises(BadInput, match="context_tokens"):
        client.ask("short_context", long)


# -- more than was reserved -------------------------------------------------------------------------------------------


def test_a_cap_is_noticed_at_the_first_answer_longer_than_was_reserved_and_that_is_kept(
    client: Client, hostile: HostileServer, store: ResponseStore, ledger: Ledger
) -> None:
    real = PRICE.usd(Usage(50, 0, 0, 4000))
    with client.opened("runaway", cap_usd=0.9 * real) as asker, pytest.raises(BudgetExceeded, match="nothing is lost"):
        asker.ask([request()])
    assert hostile.calls("runaway") == len(store) == 1
    assert ledger.spent("c") == pytest.approx(real) and ledger.reserved("c") == 0
    (reply,) = client.ask("runaway")
    assert reply.from_store and reply.usd == pytest.approx(real)


def test_after_an_overrun_as_much_is_reserved_so_that_the_cap_holds(
    client: Client, hostile: HostileServer, ledger: Ledger
) -> None:
    real = PRICE.usd(Usage(50, 0, 0, 4000))
    with client.opened("runaway", cap_usd=5.5 * real) as asker:
        asker.ask([request(0)])
        with pytest.raises(BudgetExceeded):
            asker.ask([request(row) for row in range(1, 40)])
    assert ledger.spent("c") <= 5.5 * real and hostile.calls("runaway") <= 5


# -- latency belongs to where it was measured --------------------------------------------------------------------------


def test_an_answer_lends_no_latency_to_another_venue_or_concurrency(client: Client, hostile: HostileServer) -> None:
    (first,) = client.ask("good")
    with client.opened("good", place="self_host at 8") as asker:
        (elsewhere,) = asker.ask([request()])
        assert elsewhere.from_store and math.isnan(elsewhere.latency_ms) and hostile.calls("good") == 1
        (took,) = asker.time([request()])
        assert took > 0 and hostile.calls("good") == 2 and asker.time([request()]) == [took]
        assert asker.ask([request()])[0].latency_ms == took and hostile.calls("good") == 2
    assert client.ask("good") == [replace(first, from_store=True)], "where it was bought it keeps its own"


def test_what_was_stored_before_places_were_kept_is_timed_where_calls_are_paid_by_the_token(
    client: Client, store: ResponseStore
) -> None:
    (first,) = client.ask("good")
    store._connection.execute("DELETE FROM latencies")
    assert client.ask("good")[0].latency_ms == first.latency_ms
    with client.opened("good", place="self_host at 8") as asker:
        assert math.isnan(asker.ask([request()])[0].latency_ms)


def test_a_closed_port_answers_nothing_though_another_endpoint_did(client: Client, store: ResponseStore) -> None:
    client.ask("good")
    closed = Target("openai:m", base_url="http://127.0.0.1:9/v1", api_key="k")
    with Asker(closed, store=store, price=PRICE.usd, attempts=1) as asker:
        (reply,) = asker.ask([request()])
    assert reply.error is not None and "nobody listens" in reply.error


def test_the_server_speaks_at_least_twenty_five_habits() -> None:
    assert len(HABITS) >= 25
