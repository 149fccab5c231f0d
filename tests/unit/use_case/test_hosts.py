"""Residency is judged by where requests go: the host of an address, however it is spelt, and not what is declared."""

from typing import Any

import pytest
from pydantic import ValidationError

from leastwise.use_case.hosts import host_of, is_allowed, is_local, provider_of
from leastwise.use_case.model import Model
from leastwise.use_case.requirements import Bound, Requirements, Residency
from tests.unit.use_cases import QUALITY, use_case


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://API.OpenAI.com/v1", "api.openai.com"),
        ("https://api.example.com:8443/v1", "api.example.com"),
        ("https://api.example.com./v1", "api.example.com"),
        ("https://allowed.com@evil.com/v1", "evil.com"),
        ("https://user:secret@api.example.com/v1", "api.example.com"),
        ("http://[::1]:8000/v1", "::1"),
        ("http://[2001:DB8:0:0::1]/v1", "2001:db8::1"),
        ("http://[::ffff:127.0.0.1]/v1", "127.0.0.1"),
        ("https://bücher.example/v1", "xn--bcher-kva.example"),
        ("postgresql://me:secret@db.example:5432/mlflow", "db.example"),
    ],
)
def test_a_host_is_what_a_client_would_ask(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    "address", ["localhost:8000/v1", "/v1", "https:///v1", "https://evil.com\\@allowed.com/v1", "https://%61pi.com/v1"]
)
def test_an_address_two_clients_may_read_differently_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        host_of(address)


def test_a_listed_name_stands_for_itself_and_this_machine_is_always_allowed() -> None:
    hosts = ("API.example.com:443", "[2001:db8::1]", "10.0.0.7.")
    assert all(is_allowed(each, hosts) for each in ("api.example.com", "Api.Example.Com.", "2001:db8::1", "10.0.0.7"))
    assert not any(is_allowed(each, hosts) for each in ("eu.api.example.com", "example.com", "api.example.com.evil.io"))
    assert all(is_local(each) for each in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]:80", "a.localhost"))
    assert not any(is_local(each) for each in ("localhost.evil.io", "10.0.0.1", "0.0.0.0", "127.0.0.1.evil.io"))
    assert provider_of("eu.api.openai.com") == "openai" and provider_of("api.openai.com.evil.io") is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"uri": "openai:m", "host": "eu.example.com", "base_url": "https://us.example.com/v1"},
            ("eu.exam", "us.exam"),
        ),
        ({"uri": "openai:m", "host": "eu.api.openai.com"}, ("eu.api.openai.com", "go to api.openai.com")),
        ({"uri": "anthropic:m", "host": "api.openai.com"}, ("api.openai.com", "go to api.anthropic.com")),
        ({"uri": "hf://a/b", "host": "gpu-1", "base_url": "http://gpu-2:8000/v1"}, ("gpu-1", "gpu-2")),
        ({"uri": "openai:m", "venue": "self_host"}, ("self_host", "api.openai.com")),
        ({"uri": "hf://a/b", "venue": "self_host", "base_url": "https://eu.api.openai.com/v1"}, ("self_host", "write")),
        ({"uri": "openai:m", "base_url": "gpu-1:8000/v1"}, ("names no host",)),
    ],
)
def test_a_declared_host_or_venue_that_requests_do_not_go_to_is_refused_with_both_named(
    model: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        Model.model_validate(model)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ({"uri": "openai:m"}, True),
        ({"uri": "openai:m", "host": "API.openai.com."}, True),
        ({"uri": "openai:m", "base_url": "https://api.openai.com:443/v1"}, True),
        ({"uri": "openai:m", "base_url": "https://eu.api.openai.com/v1"}, False),
        ({"uri": "openai:m", "base_url": "https://evil.example/v1"}, False),
        ({"uri": "anthropic:m"}, False),
        ({"uri": "openai:m", "base_url": "http://127.0.0.1:8000/v1"}, True),
        ({"uri": "openai:m", "base_url": "http://[::1]:8000/v1"}, True),
        ({"uri": "package://small", "venue": "self_host"}, True),
        ({"uri": "package://small", "venue": "managed"}, False),
        ({"uri": "package://small", "venue": "managed", "host": "api.openai.com"}, True),
        ({"uri": "hf://a/b", "venue": "self_host", "base_url": "http://gpu-1:8000/v1"}, False),
    ],
)
def test_residency_is_judged_by_where_requests_go(model: dict[str, Any], allowed: bool) -> None:
    limits = Residency(venues=("api", "managed", "self_host"), hosts=("api.openai.com",))
    assert limits.allows(Model.model_validate(model)) is allowed


def test_a_judge_that_is_elsewhere_is_refused_as_a_candidate_is() -> None:
    inside = QUALITY | {"residency": {"venues": ["api"], "hosts": ["api.openai.com"]}}
    task = {"kind": "free_text", "instruction": "Say it.", "metric": "token_f1"}
    judge = {"models": [{"uri": "openai:j", "base_url": "https://us.example.com/v1"}], "criteria": "Good."}
    case = use_case(requirements=inside).model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValidationError, match=r"judge\.models: residency allows none"):
        type(use_case()).model_validate(case | {"task": task, "judge": judge})


@pytest.mark.parametrize("host", ["https://api.example.com", "api.example.com/v1", "*.example.com", " "])
def test_a_list_of_hosts_holds_names_alone(host: str) -> None:
    with pytest.raises(ValidationError, match="no host name"):
        Requirements(quality=Bound(bound=0.8, margin=0.1), residency=Residency(venues=("api",), hosts=(host,)))
