"""Google's models over the wire, through its own SDK: what is sent, and what answers, refusals and counts mean."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.price import Price
from tests.servers.google_server import FILTERED, GoogleServer, google_server

LABELS = ("alpha", "beta")
PRICE = Price(input=1.0, cached=0.1, output=4.0)
Ask = Callable[..., list[Reply]]


@pytest.fixture(scope="module")
def server() -> Iterator[GoogleServer]:
    with google_server() as running:
        yield running


@pytest.fixture
def ask(server: GoogleServer, tmp_path: Path, ledger: Ledger) -> Iterator[Ask]:
    server.asked.clear()
    with ResponseStore(tmp_path / "responses.db") as store:

        def asked(habit: str, *requests: Request, name: str = "m", key: str = "the-key", **how: Any) -> list[Reply]:
            target = Target(f"google:{name}", base_url=server.base_url(habit), api_key=key, **how)
            memory, meter = Remembered(tmp_path / "habits"), Meter(ledger, Caps("c", 1.0), "p", "evaluation")
            with Asker(target, store=store, price=PRICE.usd, memory=memory, meter=meter, attempts=2) as asker:
                return asker.ask(requests or [request(0)])

        yield asked


def request(row: int, **how: Any) -> Request:
    messages = (Message("system", "Say the key."), Message("user", f"row {row} key={LABELS[row % 2]}"))
    return Request(str(row), messages, **{"max_tokens": 6} | how)


def rights(rows: Sequence[int]) -> list[str]:
    return [LABELS[row % 2] for row in rows]


def test_a_request_carries_cap_temperature_system_text_and_its_key_in_a_header(server: GoogleServer, ask: Ask):
    assert [reply.text for reply in ask("good", request(0), request(1))] == rights([0, 1])
    (first, _) = server.asked["good"]
    assert first.config["maxOutputTokens"] == 6 and first.config["temperature"] == 0
    assert "thinkingConfig" not in first.config
    assert first.body["systemInstruction"]["parts"][0]["text"] == "Say the key."
    assert first.headers["x-goog-api-key"] == "the-key" and "the-key" not in first.address


def test_a_constrained_request_is_held_to_its_labels_and_brings_the_label(server: GoogleServer, ask: Ask):
    assert ask("good", request(1, choices=LABELS))[0].text == "beta"
    config = server.asked["good"][0].config
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"]["properties"]["label"]["enum"] == list(LABELS)


THINKING: list[tuple[str, Any, int, dict[str, Any]]] = [
    ("gemini-2.5-flash", 2048, 2048, {"thinkingbudget": 2048}),
    ("gemini-2.5-flash", "low", 1024, {"thinkingbudget": 1024}),
    ("gemini-2.5-flash", "none", 0, {"thinkingbudget": 0}),
    ("gemini-3.8-flash", "high", 16_384, {"thinkinglevel": "HIGH"}),
    ("gemini-3.8-flash", 5000, 5000, {"thinkinglevel": "MEDIUM"}),
]


@pytest.mark.parametrize(("name", "reasoning", "tokens", "sent"), THINKING)
def test_the_budget_of_thinking_is_sent_and_is_part_of_the_cap(
    server: GoogleServer, ask: Ask, name: str, reasoning: Any, tokens: int, sent: dict[str, Any]
):
    ask("good", request(0, reasoning_tokens=tokens), name=name, reasoning=reasoning)
    asked = server.asked["good"][0]
    thinking = {name: value for name, value in asked.thinking.items() if name != "includethoughts"}
    assert asked.config["maxOutputTokens"] == 6 + tokens and thinking == sent


def test_cached_tokens_are_part_of_the_prompt_and_thoughts_come_on_top_of_the_answer(ask: Ask, ledger: Ledger):
    (reply,) = ask("cached_and_thought")
    assert (reply.text, reply.input_tokens, reply.cached_tokens, reply.output_tokens) == ("alpha", 950, 900, 23)
    assert ledger.spent("c") == pytest.approx((50 + 0.1 * 900 + 4 * 23) / 1e6, abs=1e-9)


@pytest.mark.parametrize("habit", [*(reason.lower() for reason in FILTERED), "blocked"])
def test_what_google_blocks_is_the_models_answer_and_is_bought_once(server: GoogleServer, ask: Ask, habit: str):
    for _ in range(2):
        (reply,) = ask(habit)
        assert (reply.text, reply.error, reply.finish_reason) == ("", None, "content_filter")
    assert len(server.asked[habit]) == 1


def test_an_answer_that_is_cut_or_empty_is_an_answer_with_its_reason(server: GoogleServer, ask: Ask):
    assert [(r.text, r.finish_reason) for r in ask("cut")] == [("alpha because", "length")]
    assert [(r.text, r.error) for r in ask("silent")] == [("", None)]
    assert len(server.asked["silent"]) == 1


@pytest.mark.parametrize(("habit", "how"), [("starved", {}), ("always_thinks", {"reasoning": "none"})])
def test_a_cap_that_goes_into_thoughts_is_found_out_by_one_paid_call_and_the_budget_is_named(
    server: GoogleServer, ask: Ask, habit: str, how: dict[str, Any]
):
    for _ in range(2):
        with pytest.raises(CannotBeAsked, match=r"finish_reason length.*set reasoning"):
            ask(habit, *(request(row) for row in range(9)), name="gemini-2.5-flash", **how)
    assert sum(asked.thinking.get("thinkingbudget") != 0 for asked in server.asked[habit]) == 1
    thinking = request(0, reasoning_tokens=1024)
    assert ask(habit, thinking, name="gemini-2.5-flash", reasoning="low")[0].text == "alpha"


REFUSING: list[tuple[str, dict[str, Any], dict[str, Any], Callable[[Any], bool]]] = [
    ("no_system", {}, {}, lambda asked: "systemInstruction" not in asked.body),
    (
        "no_thinking",
        {"name": "gemini-3.8-flash", "reasoning": "low"},
        {"reasoning_tokens": 1024},
        lambda asked: "thinkingConfig" not in asked.config,
    ),
    (
        "no_budget",
        {"name": "gemini-2.5-flash", "reasoning": 2048},
        {"reasoning_tokens": 2048},
        lambda asked: "thinkingConfig" not in asked.config,
    ),
]


@pytest.mark.parametrize(("habit", "target", "how", "holds"), REFUSING, ids=[case[0] for case in REFUSING])
def test_what_a_model_refuses_is_found_out_once_by_the_words_google_has_for_it(
    server: GoogleServer,
    ask: Ask,
    habit: str,
    target: dict[str, Any],
    how: dict[str, Any],
    holds: Callable[[Any], bool],
):
    assert [reply.text for reply in ask(habit, *(request(row, **how) for row in range(6)), **target)] == rights(
        range(6)
    )
    assert len(server.asked[habit]) == 7 and all(map(holds, server.asked[habit][1:]))


@pytest.mark.parametrize("habit", ["no_schema", "old_interface"])
def test_a_model_without_json_mode_cannot_be_held_and_is_asked_freely(server: GoogleServer, ask: Ask, habit: str):
    for _ in range(2):
        with pytest.raises(CannotBeAsked, match=r"habits\.json_schema"):
            ask(habit, request(0, choices=LABELS))
    assert len(server.asked[habit]) == 1 and ask(habit)[0].text == "alpha"


@pytest.mark.parametrize(
    ("habit", "words"), [("bad_key", "key_variable"), ("unknown_model", "served_name"), ("too_long", "context_tokens")]
)
def test_what_a_person_must_put_right_is_said_after_one_call(server: GoogleServer, ask: Ask, habit: str, words: str):
    with pytest.raises(BadInput, match=words) as refusal:
        ask(habit, *(request(row) for row in range(5)))
    assert len(server.asked[habit]) == 1 and "the-key" not in str(refusal.value)


@pytest.mark.parametrize("habit", ["exhausted", "overloaded"])
def test_what_passes_is_asked_again(server: GoogleServer, ask: Ask, habit: str):
    assert ask(habit)[0].text == "alpha" and len(server.asked[habit]) == 2


def test_the_wait_that_google_names_in_its_error_is_waited_for(server: GoogleServer, ask: Ask):
    import time

    started = time.monotonic()
    ask("exhausted")
    assert time.monotonic() - started >= 1.0
