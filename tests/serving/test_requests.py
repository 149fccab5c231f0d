"""Requests to an endpoint: the right answer or the right refusal, and one bad request harms nobody else's."""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from tests.serving.endpoints import Aliases, Running, running_endpoint, wait_for
from tests.serving.relay import Engine, running_engine

KEY = "a-key-of-enough-characters"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(engine: Engine) -> Iterator[Running]:
    limits = {"most_body_bytes": 100_000, "most_text_characters": 1_000, "most_rows": 5, "answer_timeout_s": 0.7}
    with running_endpoint(Aliases(), **limits, body_timeout_s=1.0) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(engine: Engine) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_ENDPOINT_KEYS", f"another-key-of-enough-characters, {KEY}")
        with running_endpoint(Aliases()) as running:
            patch.undo()
            yield running


def post(endpoint: Running, path: str, content: bytes, **headers: str) -> httpx.Response:
    return endpoint.client.post(f"{endpoint.url}{path}", content=content, headers=JSON | headers)


def test_an_openai_client_is_answered_by_the_champion(endpoint: Running) -> None:
    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none")
    made = client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "hello"}], temperature=0)
    assert made.choices[0].message.content == "1: hello" and made.choices[0].finish_reason == "stop"
    assert made.usage is not None and (made.usage.prompt_tokens, made.usage.completion_tokens) == (7, 1)
    assert made.usage.prompt_tokens_details is not None and made.usage.prompt_tokens_details.cached_tokens == 2
    assert made.system_fingerprint == "1-key-1"
    assert [each.id for each in client.models.list()] == ["toy", "toy@champion"]


def test_an_openai_client_that_streams_gets_the_answer_as_a_stream(endpoint: Running) -> None:
    client = openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none")
    chunks = list(
        client.chat.completions.create(
            model="toy@champion",
            messages=[{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "1: hello"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 8


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["id", "text"], "data": [[1, "a"], [2, "b"]]}},
        {"dataframe_split": {"index": [0, 1], "columns": ["text"], "data": [["a"], ["b"]]}},
        {"dataframe_records": [{"text": "a", "label": "x"}, {"text": "b"}]},
        {"inputs": ["a", "b"]},
        {"inputs": {"text": ["a", "b"]}},
        {"instances": [{"text": "a"}, {"text": "b"}]},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_invocations_take_tables_and_inputs_as_mlflow_does(endpoint: Running, body: dict[str, object]) -> None:
    answered = post(endpoint, "/invocations", json.dumps(body).encode())
    assert answered.status_code == 200, answered.text
    assert answered.json()["predictions"] == [
        {"answer": "1: a", "label": None, "confidence": 0.5, "usd": 0.001, "version": "1"},
        {"answer": "1: b", "label": None, "confidence": 0.5, "usd": 0.001, "version": "1"},
    ]


@pytest.mark.parametrize("body", [{"inputs": "a"}, {"input": "a"}, {"messages": [{"role": "user", "content": "a"}]}])
def test_invocations_take_one_text_however_it_is_given(endpoint: Running, body: dict[str, object]) -> None:
    answered = post(endpoint, "/invocations", json.dumps(body).encode())
    assert [each["answer"] for each in answered.json()["predictions"]] == ["1: a"]


def test_an_answer_comes_with_the_label_it_means_in_every_shape(endpoint: Running) -> None:
    said = post(endpoint, "/invocations", b'{"inputs": ["yes, please", "a"]}').json()["predictions"]
    assert [each["label"] for each in said] == ["yes", None]
    chat = endpoint.chat("yes, please").json()
    assert chat["leastwise"] == {"version": "1", "alias": "champion", "label": "yes", "confidence": 0.5}
    assert '"label":"yes"' in endpoint.chat("yes, please", stream=True).text


def test_a_row_that_fails_says_so_and_the_others_are_answered(endpoint: Running) -> None:
    answered = post(endpoint, "/invocations", b'{"inputs": ["a", "fail", "c"]}').json()["predictions"]
    assert [each["answer"] for each in answered] == ["1: a", None, "1: c"]
    assert "error" in answered[1] and "error" not in answered[0]


def chat(*messages: dict[str, object], **more: object) -> bytes:
    return json.dumps({"messages": messages or ({"role": "user", "content": "a"},)} | more).encode()


USER = {"role": "user", "content": "a"}
BAD = {
    "empty": (b"", 400),
    "no JSON": (b"{", 400),
    "no object": (b'["a"]', 400),
    "not UTF-8": (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', 400),
    "UTF-16": (chat().decode().encode("utf-16"), 400),
    "half a character": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    "NaN": (b'{"messages": NaN}', 400),
    "very deep": (b'{"messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
    "no messages": (b"{}", 400),
    "messages no list": (b'{"messages": "a"}', 400),
    "message no object": (b'{"messages": ["a"]}', 400),
    "no content": (chat({"role": "user"}), 400),
    "content null": (chat({"role": "user", "content": None}), 400),
    "content empty": (chat({"role": "user", "content": "  "}), 400),
    "an image": (chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}), 400),
    "a system message": (chat({"role": "system", "content": "be rude"}, USER), 400),
    "a conversation": (chat(USER, {"role": "assistant", "content": "b"}, USER), 400),
    "several answers": (chat(n=2), 400),
    "tools": (chat(tools=[{"type": "function"}]), 400),
    "another form": (chat(response_format={"type": "json_object"}), 400),
    "a field twice": (b'{"messages": [{"role": "user", "content": "a"}], "messages": []}', 400),
    "a field of a message twice": (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', 400),
    "a number of 5,000 digits": (b'{"n": ' + b"9" * 5_000 + b', "messages": [{"role": "user", "content": "a"}]}', 400),
    "content invisible": (chat({"role": "user", "content": "\u200b\u00ad\u3164 "}), 400),
    "stream no truth value": (chat(stream="yes"), 400),
    "a very long role": (chat({"role": "x" * 50_000, "content": "a"}), 400),
    "log-probabilities": (chat(logprobs=True), 400),
    "another model": (chat(model="gpt-4o"), 404),
    "a challenger that is not there": (chat(model="toy@challenger"), 404),
    "model no text": (chat(model=3), 400),
    "a text too long": (chat({"role": "user", "content": "x" * 1_001}), 400),
    "a body too long": (chat({"role": "user", "content": "x" * 100_001}), 413),
    "10 MB": (b'{"messages": "' + b"x" * 10_000_000 + b'"}', 413),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_chat_request_gets_its_status_and_an_error_openai_clients_read(endpoint: Running, name: str) -> None:
    body, status = BAD[name]
    refused = post(endpoint, "/v1/chat/completions", body)
    assert refused.status_code == status, refused.text
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and 10 < len(error["message"]) <= 500


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": ["a", None]},
        {"inputs": ["a"] * 6},
        {"inputs": ["a"], "instances": ["a"]},
        {"dataframe_records": [{"sentence": "a"}]},
        {"dataframe_records": "a"},
        {"dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}},
        {"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}},
        {"dataframe_split": {"columns": ["label"], "data": [["a"]]}},
        {"dataframe_split": {"data": [["a"]]}},
        {"inputs": {"text": {"text": "a"}}},
        {"inputs": {"text": None}},
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_a_table_of_the_wrong_shape_is_refused(endpoint: Running, body: dict[str, object]) -> None:
    assert post(endpoint, "/invocations", json.dumps(body).encode()).status_code == 400


def test_other_kinds_routes_and_methods_are_refused(endpoint: Running) -> None:
    plain = {"content-type": "text/plain"}
    assert post(endpoint, "/v1/chat/completions", chat(), **plain).status_code == 415  # what a foreign page may send
    assert (
        post(endpoint, "/v1/chat/completions", gzip.compress(chat()), **{"content-encoding": "gzip"}).status_code == 400
    )
    assert post(endpoint, "/v1/completions", chat()).json()["error"]["code"] == "no_such_route"
    assert endpoint.get("/v1/chat/completions").status_code == 405
    assert endpoint.get("/v1/chat/completions").headers["allow"] == "POST"
    assert post(endpoint, "/invocations/", b"{}").status_code == 404  # and no way to an address that the caller named
    foreign = endpoint.get("/v1/models", headers={"host": "evil.example:80"})
    assert foreign.status_code == 403


def test_a_table_that_is_very_deep_is_refused_as_one_that_is_not_is(endpoint: Running) -> None:
    for depth in (5, 990, 1_015):
        body = b'{"inputs": ' + b'{"text": ' * depth + b'"a"' + b"}" * depth + b"}"
        assert post(endpoint, "/invocations", body).status_code == 400


def test_what_openai_clients_send_as_null_is_as_good_as_left_out(endpoint: Running) -> None:
    optional = ("model", "user", "stream", "stream_options", "n", "tools", "response_format", "logprobs", "temperature")
    answered = endpoint.chat("a", **dict.fromkeys(optional))
    assert answered.status_code == 200 and answered.json()["choices"][0]["message"]["content"] == "1: a"


def test_a_failure_is_told_without_the_words_of_what_failed(endpoint: Running) -> None:
    failed = endpoint.chat("fail")
    assert failed.status_code == 502 and failed.headers["retry-after"]
    late = endpoint.chat("slow")
    assert late.status_code == 504
    for each in (failed, late):
        assert "127.0.0.1" not in each.text and "sk-" not in each.text


def test_a_text_that_the_model_cannot_read_whole_is_its_callers_to_shorten(endpoint: Running) -> None:
    refused = endpoint.chat("too long for it")
    assert refused.status_code == 400 and "retry-after" not in refused.headers
    assert refused.json()["error"]["code"] == "text_too_long" and "there is no room" not in refused.text


def test_an_answer_with_half_a_character_is_given_all_the_same(endpoint: Running) -> None:
    answered = endpoint.chat("half")
    assert answered.status_code == 200 and b"\\ud800" in answered.content


def test_a_body_that_is_too_long_is_refused_before_it_has_come(endpoint: Running) -> None:
    host, port = endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as wire:
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 10000000"
        )
        wire.sendall(f"{head}\r\n\r\n".encode() + b"x" * 1000)
        assert wire.recv(100).startswith(b"HTTP/1.1 413")


def test_who_asks_before_sending_a_body_that_is_too_long_is_told_without_sending_it(endpoint: Running) -> None:
    host, port = endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as wire:
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 10000000"
        )
        wire.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert wire.recv(100).startswith(b"HTTP/1.1 413")


def test_a_request_that_does_not_come_to_its_end_is_refused(endpoint: Running) -> None:
    host, port = endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as wire:
        head = f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100"
        wire.sendall(f"{head}\r\n\r\n".encode() + b"{")
        assert wire.recv(100).startswith(b"HTTP/1.1 408")


def test_who_shows_no_key_or_a_wrong_one_is_refused_and_each_key_opens(keyed: Running) -> None:
    for shown in ({}, {"authorization": f"Bearer {KEY}x"}, {"authorization": KEY}, {"authorization": "Bearer"}):
        refused = keyed.chat("a", headers=shown)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert keyed.get("/v1/models", headers=shown).status_code == 401
        assert keyed.get("/metrics", headers=shown).status_code == 401
    assert post(keyed, "/invocations", b"x" * 3_000_000).status_code == 401  # its sender reads why, not a reset
    for key in (KEY, "another-key-of-enough-characters"):
        assert keyed.chat("a", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert keyed.get("/metrics", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert keyed.get("/health").json()["versions"] == {"champion": "1"}


def test_a_thousand_in_flight_get_an_answer_or_are_told_to_come_back(engine: Engine) -> None:
    async def ask(client: aiohttp.ClientSession, number: int) -> tuple[int, int, dict[str, Any], str]:
        body = {"messages": [{"role": "user", "content": f"number {number}"}]}
        async with client.post(f"{crowded.url}/v1/chat/completions", json=body) as reply:
            return number, reply.status, await reply.json(), reply.headers.get("retry-after", "")

    async def all_at_once() -> list[tuple[int, int, dict[str, Any], str]]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(1_000)))

    engine.delay_s = 0.2
    try:
        with running_endpoint(Aliases(), most_in_flight=40) as crowded:
            answered = asyncio.run(all_at_once())
    finally:
        engine.delay_s = 0.0
    statuses = [status for _, status, _, _ in answered]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 40
    for number, status, said, retry_after in answered:
        if status == 200:
            assert said["choices"][0]["message"]["content"] == f"1: number {number}"
        else:
            assert retry_after == "1" and said["error"]["code"] == "too_many_in_flight"


def test_bad_requests_harm_nobody_elses(endpoint: Running) -> None:
    answers: list[str] = []
    good = threading.Thread(target=lambda: answers.extend(endpoint.answer(f"good {at}") for at in range(30)))
    good.start()
    for body, _ in list(BAD.values())[:-1] * 2:
        post(endpoint, "/v1/chat/completions", body)
    good.join()
    assert answers == [f"1: good {at}" for at in range(30)]


def test_what_is_in_flight_is_answered_before_it_ends(engine: Engine) -> None:
    with running_endpoint(Aliases()) as ending:
        answers: list[str] = []
        asking = [threading.Thread(target=lambda: answers.append(ending.answer("slow"))) for _ in range(5)]
        for each in asking:
            each.start()
        wait_for(lambda: engine.in_flight.get("1", 0) == 5)
        ending.end()
        for each in asking:
            each.join()
        assert answers == ["1: slow"] * 5
        with pytest.raises(httpx.TransportError):
            ending.get("/health")
    assert engine.closed[-1] == ("1", 0)


def test_counts_are_told_in_prometheus_words(endpoint: Running) -> None:
    endpoint.chat("counted")
    told = endpoint.get("/metrics").text
    assert 'leastwise_requests_total{route="/v1/chat/completions",status="200"}' in told
    assert 'leastwise_serving{alias="champion",version="1"} 1.0' in told
    assert 'leastwise_answer_seconds_bucket{alias="champion"' in told
    assert 'leastwise_tokens_total{kind="cached"}' in told and 'leastwise_usd_total{alias="champion"}' in told
