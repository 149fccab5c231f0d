"""Decision models over the wire, each against a stand-in that speaks its format: what is sent, and how likely each
label is by what comes; counted, priced, reserved and kept like any call.
"""

import math
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.received import log_probabilities, probabilities_in
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target, most_usage, request_key
from leastwise.endpoints.sending.decision import check_decisions, most_options
from leastwise.errors import BadInput
from leastwise.money.price_book import PriceBook, UnknownPrice
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case import UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import Price
from tests.servers.decision_server import DecisionServer, decision_server

LABELS = ("alpha", "beta", "gamma")
PRICE = Price(input=1.0, cached=0.1, output=4.0)
NAMES = {"openai-decisions": "gpt-6-luna", "google-decisions": "gemini-decision-1", "system-one": "clm-latest"}
PATHS = {"openai-decisions": "/v1/decisions", "google-decisions": "/v1beta/decisions", "system-one": "/v1/systemone"}
ALL = tuple(NAMES)
Ask = Callable[..., list[Reply]]


@pytest.fixture(scope="module")
def server() -> Iterator[DecisionServer]:
    with decision_server() as running:
        yield running


@pytest.fixture
def ask(server: DecisionServer, tmp_path: Path, ledger: Ledger) -> Iterator[Ask]:
    server.asked.clear()
    with ResponseStore(tmp_path / "responses.db") as store:

        def asked(provider: str, habit: str, *requests: Request, usd: float = 1.0, **how: Any) -> list[Reply]:
            url = server.base_url(habit) + ("" if provider == "google-decisions" else "/v1")
            target = Target(f"{provider}:{NAMES[provider]}", base_url=url, api_key="the-key", **how)
            memory, meter = Remembered(tmp_path / "habits"), Meter(ledger, Caps("c", usd), "p", "evaluation")
            with Asker(target, store=store, price=PRICE.usd, memory=memory, meter=meter, attempts=2) as asker:
                return asker.ask(requests or [request(0)])

        yield asked


def request(row: int, labels: tuple[str, ...] = LABELS, **how: Any) -> Request:
    messages = (Message("system", "Say the key."), Message("user", f"row {row} key={labels[row % len(labels)]}"))
    return Request(str(row), messages, 6, choices=labels, decides=True, **how)


@pytest.mark.parametrize("provider", ALL)
def test_a_decision_goes_out_as_one_question_with_the_labels_as_options_and_comes_back_as_their_likelihoods(
    server: DecisionServer, ask: Ask, ledger: Ledger, provider: str
):
    replies = ask(provider, "good", request(0), request(1))
    for reply, right in zip(replies, LABELS, strict=False):
        found = likelihoods_in(reply.text)
        assert found is not None and set(found) == set(LABELS)
        assert found[right] == pytest.approx(math.log(0.9), abs=1e-5)
        assert sum(map(math.exp, found.values())) == pytest.approx(1, abs=1e-4)
        assert (reply.input_tokens, reply.output_tokens, reply.usage_known, reply.error) == (1950, 0, True, None)
    asked = server.asked["good"][0]
    assert asked.path == f"/good{PATHS[provider]}" and asked.body["model"] == NAMES[provider]
    assert "max_tokens" not in asked.body and "temperature" not in asked.body
    said = str(asked.body)
    assert "Say the key." in said and "row 0 key=alpha" in said and all(label in said for label in LABELS)
    key = asked.headers.get("Authorization") or asked.headers["x-goog-api-key"]
    assert key.removeprefix("Bearer ") == "the-key"
    cached = 900 if provider == "openai-decisions" else 0
    assert ledger.spent("c") == pytest.approx(2 * (1950 - 0.9 * cached) / 1e6, abs=1e-9)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai-decisions", "gpt-6-luna-2026-09-01"), ("system-one", "clm-v0.1")]
)
def test_the_model_that_answered_is_kept_where_the_host_names_it(ask: Ask, provider: str, model: str):
    assert ask(provider, "good")[0].answered_by == model


@pytest.mark.parametrize("provider", ALL)
def test_an_unchanged_question_is_bought_once_and_other_labels_are_another(
    server: DecisionServer, ask: Ask, provider: str
):
    for _ in range(2):
        ask(provider, "good")
    assert len(server.asked["good"]) == 1
    ask(provider, "good", request(0, LABELS[:2]))
    assert len(server.asked["good"]) == 2


@pytest.mark.parametrize("provider", ALL)
def test_a_distribution_that_does_not_sum_to_one_was_paid_for_and_is_read_all_the_same(
    server: DecisionServer, ask: Ask, provider: str
):
    (reply,) = ask(provider, "careless")
    found = likelihoods_in(reply.text)
    assert found is not None and max(found, key=found.__getitem__) == "alpha" and len(server.asked["careless"]) == 1


def test_a_probability_told_as_nothing_is_small_and_not_impossible(ask: Ask):
    found = likelihoods_in(ask("system-one", "rounded")[0].text)
    assert found is not None and found["alpha"] == 0 and found["beta"] == pytest.approx(math.log(0.0025))


def test_what_openai_declines_to_decide_is_the_models_answer_and_is_bought_once(server: DecisionServer, ask: Ask):
    for _ in range(2):
        (reply,) = ask("openai-decisions", "declines")
        assert (reply.text, reply.error, reply.finish_reason) == ("", None, "content_filter")
    assert len(server.asked["declines"]) == 1


@pytest.mark.parametrize("provider", ALL)
def test_a_refused_key_is_said_after_one_call(server: DecisionServer, ask: Ask, ledger: Ledger, provider: str):
    with pytest.raises(BadInput, match="key_variable"):
        ask(provider, "no_key", *(request(row) for row in range(5)))
    assert len(server.asked["no_key"]) == 1 and ledger.spent("c") == 0


def test_more_labels_than_a_host_has_letters_for_is_said_after_one_call_that_costs_nothing(
    server: DecisionServer, ask: Ask, ledger: Ledger
):
    many = tuple(f"label{n}" for n in range(5))
    with pytest.raises(BadInput, match="more labels than this decision model takes; name another model"):
        ask("system-one", "lettered", *(request(row, many) for row in range(5)))
    assert len(server.asked["lettered"]) == 1 and ledger.spent("c") == 0


@pytest.mark.parametrize("provider", ALL)
def test_a_decision_that_a_cap_has_no_room_for_is_not_sent(server: DecisionServer, ask: Ask, provider: str):
    with pytest.raises(BudgetExceeded):
        ask(provider, "good", usd=1e-6)
    assert not server.asked["good"]


def test_a_decisions_worst_case_counts_every_option_and_its_key_is_its_own():
    few, many = (most_usage(request(0, tuple(f"l{n}" for n in range(count)))) for count in (3, 50))
    assert many.input_tokens - few.input_tokens >= 47 * (2 + 12) and few.output_tokens == many.output_tokens == 16
    target = Target("system-one:m", base_url="http://127.0.0.1/v1")
    plain = Request("r", request(0).messages, 6, choices=LABELS)
    assert request_key(target, plain) != request_key(target, request(0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.booleans())
def test_probabilities_are_read_alike_from_a_list_and_a_mapping_and_their_logarithms_keep_their_order(
    told: list[float], is_listed: bool
):
    names = [f"l{n}" for n in range(len(told))]
    likely = dict(zip(names, told, strict=True))
    answer: Any = [{"value": name, "probability": each} for name, each in likely.items()] if is_listed else likely
    body = {"answers": [{"probabilities": answer}] if is_listed else {"label": {"probabilities": answer}}}
    found = probabilities_in(body, names)
    assert found == (likely if any(told) else None)
    logs = log_probabilities(likely)
    assert all(value <= 0 and math.isfinite(value) for value in logs.values())
    assert all(logs[a] <= logs[b] + 1e-6 for a in names for b in names if likely[a] <= likely[b])


BROKEN: list[Any] = [
    None,
    {},
    {"answers": []},
    {"answers": {"q": {}}},
    {"answers": {"q": {"probabilities": {"alpha": 2}}}},
]


@pytest.mark.parametrize("body", BROKEN)
def test_what_tells_no_probability_of_every_label_is_no_decision(body: Any):
    assert probabilities_in(body, LABELS) is None


def case(uris: list[str], task: dict[str, Any] | None = None, **fields: Any) -> UseCase:
    models = [{"uri": uri, "base_url": "http://127.0.0.1:1/v1"} for uri in uris]
    return UseCase.model_validate(
        {
            "name": "decided",
            "task": task or {"instruction": "Which?", "labels": list(LABELS)},
            "data": {"gate": "gate.csv"},
            "requirements": {"quality": {"bound": 0.9, "margin": 0.1}},
            "traffic": {"requests_per_month": 10},
            "models": {"candidates": models},
            "allow_no_test": True,
        }
        | fields
    )


def test_a_decision_model_is_refused_before_money_where_there_is_nothing_to_decide_among():
    text = {"kind": "free_text", "instruction": "Say."}
    with pytest.raises(BadInput, match=r"openai-decisions:m is a decision model.*name a model that writes"):
        check_decisions(case(["openai-decisions:m", "google-decisions:m"], text))
    check_decisions(case(["openai-decisions:m"]))


def test_more_labels_than_the_interface_takes_are_refused_before_money(monkeypatch: pytest.MonkeyPatch):
    from pydantic_ai.models.openai_decisions import OpenAIDecisionsModel

    assert most_options("openai-decisions") == most_options("google-decisions") == 255
    assert most_options("system-one") is None
    monkeypatch.setattr(OpenAIDecisionsModel, "max_choice_options", 2)
    with pytest.raises(BadInput, match="decides among at most 2 labels, and the task has 3"):
        check_decisions(case(["openai-decisions:m"]))


def test_list_prices_are_those_of_the_decisions_and_a_host_without_one_says_how_to_add_it():
    book = PriceBook(as_of=date(2026, 11, 20))
    price = book.price("openai-decisions:gpt-6-luna")
    assert (price.input, price.output) == (0.10, 0.0)
    for uri in ("google-decisions:gemini-decision-1", "system-one:clm-latest"):
        with pytest.raises(UnknownPrice, match=f'overrides: {{"{uri}"'):
            book.price(uri)


def test_a_decision_model_is_known_by_its_uri_and_its_provider_is_that_of_its_host():
    assert Model(uri="openai-decisions:m").request_host == "api.openai.com"
    assert Model(uri="google-decisions:m").decides and not Model(uri="openai:m").decides
    with pytest.raises(ValueError, match=r"self_host is declared, and requests go to api\.openai\.com"):
        Model(uri="openai-decisions:m", venue="self_host")


def test_a_decision_model_is_no_judge():
    text = {"kind": "free_text", "instruction": "Say.", "metric": "judge"}
    judges = {"criteria": "Good.", "models": [{"uri": "openai-decisions:m"}]}
    asked = case(["openai:m"], text, judge=judges, data={"gate": "gate.csv", "graded": "graded.csv"})
    with pytest.raises(BadInput, match=r"judge\.models: openai-decisions:m is a decision model and writes no grade"):
        check_decisions(asked)
