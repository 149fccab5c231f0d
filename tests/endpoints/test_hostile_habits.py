"""An endpoint with habits of its own is asked as it wants to be: found out once, remembered, paid for once."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints.habits import known_habits, understood, with_known_reasoning
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.providers import check_keys, key_of
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target, request_key, usd_worst
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.metrics.thinking import without_thinking
from leastwise.redaction import redacted, without_secrets
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.remembered import Remembered
from leastwise.use_case.habits import NO_HABITS, Habits
from leastwise.use_case.price import Usage
from tests.servers.hostile_server import HostileServer, hostile_server
from tests.unit.use_cases import use_case

LABELS = ("alpha", "beta")
OPEN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def ask(server: HostileServer, tmp_path: Path) -> Iterator[Callable[..., list[Reply]]]:
    server.forget()
    store = ResponseStore(tmp_path / "responses.db")

    def asked(habit: str, requests: Sequence[Request], uri: str = "openai:m", **how: Any) -> list[Reply]:
        target = Target(uri, base_url=server.base_url(habit), **how)
        memory, meter = (
            Remembered(tmp_path / "habits"),
            Meter(LedgerFile(tmp_path / "ledger.db"), Caps("c"), "p", "evaluation"),
        )
        with Asker(target, store=store, price=price, memory=memory, meter=meter, attempts=2) as asker:
            return asker.ask(requests)

    yield asked
    store.close()


def price(usage: Usage) -> float:
    return (usage.input_tokens + 4 * usage.output_tokens) / 1e6


def request(row: int, **how: Any) -> Request:
    right = LABELS[row % 2]
    messages = (Message("system", "Say the key."), Message("user", f"row {row} key={right}"))
    return Request(str(row), messages, **{"max_tokens": 6} | how)


def rights(count: int) -> list[str]:
    return [LABELS[row % 2] for row in range(count)]


REFUSING = [  # habit, how it is asked, what must have been left out or changed in what it accepted at last
    ("no_system", {}, {}, lambda body: body["messages"][0]["content"].startswith("Say the key.\n\nrow")),
    ("alternating", {}, {}, lambda body: [m["role"] for m in body["messages"]] == ["user"]),
    ("old_cap", {}, {}, lambda body: body["max_tokens"] == 6),
    ("own_temperature", {}, {}, lambda body: "temperature" not in body),
    ("no_cache_key", {"provider_cache": True}, {}, lambda body: "prompt_cache_key" not in body),
    ("no_logprobs", {}, {"wants_confidence": True}, lambda body: not body.get("logprobs")),
    ("no_effort", {"reasoning": "low"}, {"reasoning_tokens": 1024}, lambda body: "reasoning_effort" not in body),
    ("no_strict", {}, {"choices": LABELS}, lambda body: "strict" not in body["response_format"]["json_schema"]),
    ("no_seed_no_nothing", {}, {}, lambda body: set(body) <= {"model", "messages", "max_tokens", "stream"}),
    ("wordless", {}, {}, lambda body: "temperature" not in body),
]


@pytest.mark.parametrize(("habit", "target", "how", "holds"), REFUSING, ids=[case[0] for case in REFUSING])
def test_what_an_endpoint_refuses_is_found_out_once_and_every_answer_is_bought_once(
    server: HostileServer, ask: Any, habit: str, target: dict[str, Any], how: dict[str, Any], holds: Any
):
    requests = [request(row, **how) for row in range(12)]
    replies = ask(habit, requests, **target)
    assert [reply.text for reply in replies] == rights(12) and not any(reply.from_store for reply in replies)
    assert all(holds(asked.body) for asked in server.asked[habit][-11:])
    tries = server.calls(habit) - 12
    assert tries <= 6  # refusals, which nobody bills, and all before the second row
    more = ask(habit, [request(row, **how) for row in range(12, 15)], **target)
    assert [reply.text for reply in more] == rights(3) and server.calls(habit) == 12 + tries + 3
    again = ask(habit, requests, **target)
    assert all(reply.from_store for reply in again) and server.calls(habit) == 12 + tries + 3


def test_what_was_found_out_is_said_with_the_setting_and_kept_in_a_file(
    ask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "leastwise"):
        ask("no_system", [request(0)])
    (file,) = (tmp_path / "habits").iterdir()
    assert "system_role: false" in caplog.text and str(file) in caplog.text
    assert json.loads(file.read_text())["habits"]["system_role"] is False


def test_what_a_person_says_goes_before_what_was_found_out(server: HostileServer, ask: Any):
    ask("no_system", [request(0)])
    ask("no_system", [request(1)], habits=Habits(system_role=True))
    roles = [[message["role"] for message in asked.messages] for asked in server.asked["no_system"]]
    assert roles == [["system", "user"], ["user"], ["system", "user"], ["user"]]


def test_a_habit_is_remembered_only_if_asking_so_has_worked(server: HostileServer, ask: Any, tmp_path: Path):
    (reply,) = ask("misleading", [request(0)])
    assert reply.error and "habits" in reply.error and not (tmp_path / "habits").exists()
    assert server.calls("misleading") <= 8


@pytest.mark.parametrize("habit", ["dashscope_filter", "deepseek_filter", "short_context"])
def test_what_is_refused_for_its_content_teaches_nothing(server: HostileServer, ask: Any, tmp_path: Path, habit: str):
    long = Request("0", (Message("user", "long " * 200),), max_tokens=6)
    with suppress(BadInput):  # too long is for a person to put right, a filtered text is the model's answer
        ask(habit, [long])
    assert server.calls(habit) == 1 and not (tmp_path / "habits").exists()


def test_a_model_without_json_schema_cannot_be_asked_constrained_and_is_asked_that_once(
    server: HostileServer, ask: Any
):
    for _ in range(2):
        with pytest.raises(CannotBeAsked, match=r"takes no JSON schema.*unavailable now.*habits\.json_schema"):
            ask("no_schema", [request(row, choices=LABELS) for row in range(5)])
    assert server.calls("no_schema") == 1
    assert [reply.text for reply in ask("no_schema", [request(row) for row in range(5)])] == rights(5)


def test_a_schema_is_strict_only_where_it_says_so_itself(server: HostileServer, ask: Any):
    closed = OPEN_SCHEMA | {"required": ["name", "age"], "additionalProperties": False}
    record = 'json={"name": "Ann"} end'
    for schema, how in ((OPEN_SCHEMA, {}), (closed, {}), (OPEN_SCHEMA, {"habits": Habits(strict_schema=True)})):
        ask("good", [Request("0", (Message("user", record),), 20, json_schema=schema)], **how)
    sent = [asked.body["response_format"]["json_schema"] for asked in server.asked["good"]]
    assert [each.get("strict") for each in sent] == [None, True, True] or [
        bool(each.get("strict")) for each in sent
    ] == [False, True, True]
    assert sent[0]["schema"]["required"] == ["name"] and sent[2]["schema"]["required"] == ["name", "age"]


def test_a_cache_key_goes_to_its_makers_host_alone_unless_somebody_says_so(server: HostileServer, ask: Any):
    ask("good", [request(0)], provider_cache=True)
    ask("good", [request(1)], provider_cache=True, habits=Habits(cache_key=True))
    assert ["prompt_cache_key" in asked.body for asked in server.asked["good"]] == [False, True]


def test_the_name_it_is_served_under_is_asked_for_and_named_as_the_remedy(ask: Any):
    (reply,) = ask("named", [request(0)], uri="hf://acme/tiny-chat", model="acme/tiny-chat")
    assert reply.text == "alpha"
    with pytest.raises(BadInput, match="served_name"):
        ask("named", [request(0)], uri="openai:other")


def test_extra_fields_go_with_every_request(server: HostileServer, ask: Any):
    body: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    replies = ask("switched_off", [request(row) for row in range(3)], habits=Habits(extra_body=body))
    assert [reply.text for reply in replies] == rights(3)


# -- thinking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", ["think", "half_think", "thinking_field", "parts"])
@pytest.mark.parametrize("how", [{}, {"choices": LABELS}], ids=["free", "constrained"])
def test_what_is_thought_is_not_the_answer(ask: Any, habit: str, how: dict[str, Any]):
    assert [reply.text for reply in ask(habit, [request(row, **how) for row in range(4)])] == rights(4)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>\n\nb", "b"),
        ("<think>a", ""),
        ("b<think>a", "b"),
        ("<thinking>a</thinking> b <thinking>c</thinking>", "b"),
        ("[THINK]a[/THINK]b", "b"),
        (" b ", " b "),
        ("2 < 3 > 1", "2 < 3 > 1"),
    ],
)
def test_marks_of_thinking_are_cut_where_they_belong(text: str, answer: str):
    assert without_thinking(text) == answer


@pytest.mark.parametrize("habit", ["starved", "endless_think", "insatiable"])
def test_a_model_that_thinks_beyond_its_cap_is_found_out_by_one_call_and_the_budget_is_named(
    server: HostileServer, ask: Any, habit: str
):
    for _ in range(2):
        with pytest.raises(CannotBeAsked, match=r"finish_reason length.*set reasoning"):
            ask(habit, [request(row) for row in range(25)])
    assert server.calls(habit) == 1


def test_with_a_budget_it_is_asked_anew_and_the_budget_is_in_cap_and_worst_case(server: HostileServer, ask: Any):
    with pytest.raises(CannotBeAsked):
        ask("starved", [request(0)])
    thinking = [request(row, reasoning_tokens=1024) for row in range(5)]
    assert [reply.text for reply in ask("starved", thinking, reasoning="low")] == rights(5)
    assert server.asked["starved"][-1].cap == 6 + 1024
    assert usd_worst(thinking[0], price) - usd_worst(request(0), price) == pytest.approx(4 * 1024 / 1e6)


def test_known_models_need_no_finding_out():
    assert known_habits(Target("openai:gpt-5-mini")).temperature is False
    assert known_habits(Target("openai:gpt-4o-mini")).temperature is None
    assert known_habits(Target("openai:gpt-6-luna", reasoning="none")).temperature is None
    assert known_habits(Target("openai:gpt-6-luna", reasoning="low")).logprobs is False
    assert known_habits(Target("openai:deepseek-chat", base_url="https://api.deepseek.com/v1")).json_schema is not True
    assert known_habits(Target("openai:a/b", base_url="https://openrouter.ai/api/v1")).cap_field == "max_tokens"
    assert known_habits(Target("anthropic:claude-haiku-5-5")).temperature is False


def test_a_model_known_to_think_has_a_budget_and_may_not_be_told_to_think_nothing():
    models = {
        "candidates": [{"uri": "openai:gpt-5-mini"}, {"uri": "openai:gpt-4o"}, {"uri": "google:gemini-3.8-flash"}]
    }
    known = with_known_reasoning(use_case(models=models))
    assert [model.reasoning for model in known.models.candidates] == ["medium", None, "medium"]
    assert known.models.candidates[0].most_output_tokens(12) == 12 + 4096
    with pytest.raises(BadInput, match=r"models\.candidates: openai:gpt-5-mini always thinks"):
        with_known_reasoning(use_case(models={"candidates": [{"uri": "openai:gpt-5-mini", "reasoning": "none"}]}))


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_goes_only_to_the_host_it_belongs_to(server: HostileServer, ask: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-000000000000")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-ours")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    ask("good", [request(0)])
    headers = server.asked["good"][0].headers
    assert headers["Authorization"] == "Bearer none" and "OpenAI-Organization" not in headers
    assert key_of(Target("openai:m")) == "sk-of-openai-000000000000"
    assert key_of(Target("openai:m", base_url="https://eu.api.openai.com/v1")) == "sk-of-openai-000000000000"
    for foreign in ("https://api.openai.com.evil.example/v1", "http://api.openai.com/v1", "https://gw.example/v1"):
        with pytest.raises(BadInput, match="key_variable"):
            key_of(Target("openai:m", base_url=foreign))
    assert key_of(Target("hf://a/b", base_url="http://gpu-1.internal:8000/v1")) == "none"
    assert key_of(Target("openai:m", base_url="https://gw.example/v1", key_variable="none")) == "none"


def test_a_key_of_another_host_is_named_by_its_variable_and_never_shown(
    ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MY_KEY", "the-wrong-key-9999")
    with pytest.raises(BadInput, match="key_variable") as refusal:
        ask("locked", [request(0)], key_variable="MY_KEY")
    assert "the-wrong-key" not in str(refusal.value)
    monkeypatch.setenv("MY_KEY", "the-right-key-0001")
    assert ask("locked", [request(0)], key_variable="MY_KEY")[0].text == "alpha"
    with pytest.raises(BadInput, match="set NO_SUCH_KEY"):
        ask("locked", [request(0)], key_variable="NO_SUCH_KEY")


@pytest.mark.parametrize(
    "url", ["https://u:p@h.example/v1", "https://h.example/v1?api_key=k", "https://k@h.example/v1"]
)
def test_credentials_in_an_address_are_refused_without_being_shown(url: str):
    with pytest.raises(ValueError, match="base_url: carries") as refusal:
        use_case(models={"candidates": [{"uri": "openai:m", "base_url": url}]})
    assert "key_variable" in str(refusal.value)


def test_a_key_has_no_place_in_extra_fields_for_use_cases_are_logged():
    with pytest.raises(ValueError, match="key_variable"):
        Habits(extra_body={"api_key": "k"})
    with pytest.raises(ValueError, match="max_tokens: is set by Leastwise"):
        Habits(extra_body={"max_tokens": 99})


def test_a_foreign_host_whose_key_nobody_has_named_is_refused_before_anything_is_spent():
    foreign = {"uri": "openai:m", "base_url": "https://gw.example/v1"}
    with pytest.raises(BadInput, match=r"which key belongs to gw\.example.*key_variable"):
        check_keys(use_case(models={"candidates": [foreign]}))
    check_keys(use_case(models={"candidates": [foreign | {"key_variable": "none"}, {"uri": "openai:gpt-4o"}]}))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://mlflow:s3cret@db/mlflow",
        "https://s3cret@host/x",
        "https://host/v1?api-version=1&sig=s3cret",
        "Authorization: Bearer s3cret-s3cret",
        "key sk-proj-s3crets3crets3cret is wrong",
    ],
)
def test_credentials_are_taken_out_of_what_is_said(text: str):
    assert "s3cret" not in redacted(text) and "***" in redacted(text)


def test_a_link_to_the_record_carries_no_user():
    assert without_secrets("https://ann:s3cret@mlflow.example/x") == "https://mlflow.example/x"
    assert without_secrets("sqlite:////a@b/mlflow.db") == "sqlite:////a@b/mlflow.db"


# -- what a refusal means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "learned"),
    [
        ("Unsupported parameter: 'max_completion_tokens'. Use 'max_tokens' instead.", Habits(cap_field="max_tokens")),
        ("max_completion_tokens is too large: 9000. This model supports at most 4096", None),
        ("`temperature` is deprecated for this model.", Habits(temperature=False)),
        ("Only user and assistant roles are supported!", Habits(system_role=False)),
        ("Developer instruction is not enabled for models/gemma-3", Habits(system_role=False)),
        ("Invalid schema for response_format: 'additionalProperties' …", Habits(strict_schema=False)),
        ("response_format: structured outputs are not supported by this model", Habits(json_schema=False)),
        ("cache_control: extra inputs are not permitted", Habits(cache_key=False)),
        ("This model's maximum context length is 2048 tokens", None),
        ("Input data may contain inappropriate content; temperature", None),
        ("Internal error", None),
    ],
)
def test_a_refusal_is_understood_by_what_it_names(refusal: str, learned: Habits | None):
    assert understood(refusal, request(0, choices=LABELS), NO_HABITS) == learned


def test_habits_of_before_change_no_key():
    plain = request_key(Target("openai:m"), request(0))
    same = request_key(Target("openai:m", habits=Habits(temperature=False, logprobs=False)), request(0))
    assert plain == same
    assert request_key(Target("openai:m", habits=Habits(system_role=False)), request(0)) != plain
    assert request_key(Target("openai:m"), request(0, reasoning_tokens=5)) != plain
