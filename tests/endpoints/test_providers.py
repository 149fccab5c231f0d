"""Providers beside the three makers over the wire, each against a stand-in that speaks its format: path, key, body,
counts, refusals, limits; and whose key goes where.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints.clients.bedrock import CHAIN, bedrock_client, bedrock_model
from leastwise.endpoints.clients.known import KEY_VARIABLES, OWN_URL
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.providers import key_of, url_of
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import PROVIDERS, Message, Request, Target
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.hosts import HOSTED
from leastwise.use_case.price import Price
from tests.servers.provider_server import CHAT_USAGE, REFUSALS, UNKNOWN_MODELS, ProviderServer, provider_server

LABELS = ("alpha", "beta")
PRICE = Price(input=1.0, cached=0.1, cache_write=1.25, output=4.0)
CLAUDE = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
NAMES = {  # as each provider names its models
    "azure": "our-deployment",
    "bedrock": CLAUDE,
    "openrouter": "meta-llama/llama-3.3-70b-instruct",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "fireworks": "accounts/fireworks/models/llama-v3p3-70b-instruct",
    "deepseek": "deepseek-chat",
    "ollama": "llama3.2:3b",
    "vllm": "org/model",
}
CHATTING = tuple(CHAT_USAGE)
ALL = (*CHATTING, "bedrock")
Ask = Callable[..., list[Reply]]


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with provider_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    for name in (*KEY_VARIABLES.values(), "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def ask(server: ProviderServer, tmp_path: Path, ledger: Ledger) -> Iterator[Ask]:
    server.asked.clear()
    with ResponseStore(tmp_path / "responses.db") as store:

        def asked(name: str, *requests: Request, query: str = "", **how: Any) -> list[Reply]:
            provider = name.partition("-")[0]
            target = Target(
                f"{provider}:{NAMES[provider]}", base_url=server.base_url(name) + query, **{"api_key": "the-key"} | how
            )
            memory, meter = Remembered(tmp_path / "habits"), Meter(ledger, Caps("c", 1.0), "p", "evaluation")
            with Asker(target, store=store, price=PRICE.usd, memory=memory, meter=meter, attempts=2) as asker:
                return asker.ask(requests or [request(0)])

        yield asked


def request(row: int, **how: Any) -> Request:
    messages = (Message("system", "Say the key."), Message("user", f"row {row} key={LABELS[row % 2]}"))
    return Request(str(row), messages, **{"max_tokens": 6} | how)


@pytest.mark.parametrize("provider", CHATTING)
def test_a_chat_request_goes_to_the_providers_path_with_its_key_and_brings_answer_counts_and_model(
    server: ProviderServer, ask: Ask, ledger: Ledger, provider: str
):
    (reply,) = ask(provider)
    (asked,) = server.asked[provider]
    path = {"azure": "/azure/openai/v1/chat/completions"}.get(provider, f"/{provider}/chat/completions")
    assert asked.address == path and asked.headers["Authorization"] == "Bearer the-key"
    assert asked.body["model"] == NAMES[provider] and asked.body["temperature"] == 0
    assert 6 in (asked.body.get("max_completion_tokens"), asked.body.get("max_tokens"))
    assert [each["role"] for each in asked.body["messages"]] == ["system", "user"]
    cached = 0 if provider == "ollama" else 900  # which tells none
    counts = (reply.input_tokens, reply.cached_tokens, reply.output_tokens)
    assert (reply.text, counts) == ("alpha", (950, cached, 3)) and reply.usage_known
    assert reply.answered_by == f"{provider}-model-2026-10-01"
    assert ledger.spent("c") == pytest.approx((950 - cached + 0.1 * cached + 4 * 3) / 1e6, abs=1e-9)


def test_azure_at_a_version_is_asked_by_deployment_with_the_key_in_its_own_header_alone(
    server: ProviderServer, ask: Ask
):
    assert ask("azure", query="?api-version=2024-10-21")[0].text == "alpha"
    (asked,) = server.asked["azure"]
    assert asked.address == "/azure/openai/deployments/our-deployment/chat/completions?api-version=2024-10-21"
    assert asked.headers["api-key"] == "the-key" and "Authorization" not in asked.headers


@pytest.mark.parametrize("provider", [each for each in CHATTING if each != "deepseek"])
def test_a_constrained_request_is_held_to_its_labels_and_brings_the_label(
    server: ProviderServer, ask: Ask, provider: str
):
    assert ask(provider, request(1, choices=LABELS))[0].text == "beta"
    schema = server.asked[provider][0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == list(LABELS)


@pytest.mark.parametrize("provider", ALL)
def test_a_limit_is_waited_for_as_long_as_it_says_and_the_sdk_tries_nothing_by_itself(
    server: ProviderServer, ask: Ask, provider: str
):
    import time

    started = time.monotonic()
    assert ask(f"{provider}-busy")[0].text == "alpha"
    assert len(server.asked[f"{provider}-busy"]) == 2 and time.monotonic() - started >= 1.0


@pytest.mark.parametrize("provider", [*REFUSALS, "bedrock"])
def test_what_a_provider_refuses_for_its_content_is_the_models_answer_and_is_bought_once(
    server: ProviderServer, ask: Ask, provider: str
):
    for _ in range(2):
        (reply,) = ask(f"{provider}-refusing")
        assert (reply.error, reply.finish_reason) == (None, "content_filter")
    assert len(server.asked[f"{provider}-refusing"]) == 1


@pytest.mark.parametrize("provider", [*UNKNOWN_MODELS, "bedrock"])
def test_an_unknown_model_is_bad_input_with_the_remedy_after_one_call(server: ProviderServer, ask: Ask, provider: str):
    with pytest.raises(BadInput, match="served_name"):
        ask(f"{provider}-unknown", *(request(row) for row in range(4)))
    assert len(server.asked[f"{provider}-unknown"]) == 1


@pytest.mark.parametrize("provider", ALL)
def test_a_refused_key_is_bad_input_after_one_call_and_is_not_shown(server: ProviderServer, ask: Ask, provider: str):
    with pytest.raises(BadInput, match="key") as refusal:
        ask(f"{provider}-locked", *(request(row) for row in range(4)))
    assert len(server.asked[f"{provider}-locked"]) == 1 and "the-key" not in str(refusal.value)


def test_bedrock_is_asked_by_converse_and_its_counts_beside_the_input_are_added(
    server: ProviderServer, ask: Ask, ledger: Ledger
):
    (reply,) = ask("bedrock", request(1), provider_cache=True)
    (asked,) = server.asked["bedrock"]
    assert asked.address.startswith("/bedrock/model/us.anthropic.claude-haiku") and "/converse" in asked.address
    assert asked.headers["Authorization"] == "Bearer the-key"
    assert asked.body["inferenceConfig"] == {"maxTokens": 6, "temperature": 0.0}
    assert asked.body["system"][0] == {"text": "Say the key."} and "cachePoint" in asked.body["system"][-1]
    assert (reply.text, reply.error) == ("beta", None), "what is thought is no part of it"
    assert (reply.input_tokens, reply.cached_tokens, reply.cache_write_tokens) == (970, 900, 20)
    assert ledger.spent("c") == pytest.approx((50 + 0.1 * 900 + 1.25 * 20 + 4 * 3) / 1e6, abs=1e-9)
    assert reply.answered_by == "", "Converse names no model"


def test_bedrock_holds_to_a_schema_whom_it_can_and_says_who_cannot(server: ProviderServer, ask: Ask):
    assert ask("bedrock", request(1, choices=LABELS))[0].text == "beta"
    schema = server.asked["bedrock"][0].body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert json.loads(schema)["properties"]["label"]["enum"] == list(LABELS)


def test_how_much_is_thought_is_told_each_in_its_own_words_and_is_part_of_the_cap(
    server: ProviderServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    thinking = {"reasoning": "low"}
    monkeypatch.setitem(NAMES, "openrouter", "openai/gpt-6.1-terra")
    ask("openrouter", request(0, reasoning_tokens=1024), **thinking)
    (chat,) = server.asked["openrouter"]
    assert chat.body["reasoning"]["effort"] == "low"
    ask("bedrock", request(0, reasoning_tokens=1024), **thinking)
    (converse,) = server.asked["bedrock"]
    assert converse.body["additionalModelRequestFields"]["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert converse.body["inferenceConfig"]["maxTokens"] == 6 + 1024


def test_a_token_that_a_model_names_goes_before_awss_own_where_the_host_is_not_awss(
    server: ProviderServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "awss-token")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    monkeypatch.setenv("GATEWAY_KEY", "the-gateways")
    ask("bedrock", api_key=None, key_variable="GATEWAY_KEY")
    (asked,) = server.asked["bedrock"]
    assert asked.headers["Authorization"] == "Bearer the-gateways"
    assert "AKIAEXAMPLE" not in json.dumps(dict(asked.headers)) and "awss-token" not in json.dumps(dict(asked.headers))


def test_bedrock_that_is_down_is_asked_again(server: ProviderServer, ask: Ask):
    assert ask("bedrock-down")[0].text == "alpha" and len(server.asked["bedrock-down"]) == 2


def test_a_model_on_bedrock_that_takes_no_schema_cannot_be_held_to_one(
    server: ProviderServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(NAMES, "bedrock", "amazon.titan-text-express-v1")
    with pytest.raises(CannotBeAsked, match=r"habits\.json_schema"):
        ask("bedrock", request(1, choices=LABELS))
    assert not server.asked["bedrock"]


def test_awss_chain_signs_a_request_and_sends_no_secret(server: ProviderServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    server.asked.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # an SDK would go there instead
    client = bedrock_client(server.base_url("bedrock"), CHAIN, 5.0)
    assert bedrock_model(CLAUDE, client).model_name == CLAUDE
    client.converse(modelId=CLAUDE, messages=[{"role": "user", "content": [{"text": "key=alpha"}]}])
    (asked,) = server.asked["bedrock"]
    assert asked.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert "a-secret-of-aws" not in json.dumps([dict(asked.headers), asked.body])


AT_THEIR_OWN = {
    **{provider: OWN_URL[provider] for provider in ("openrouter", "together", "fireworks", "deepseek")},
    "azure": "https://res.openai.azure.com",
}


@pytest.mark.parametrize("provider", AT_THEIR_OWN)
def test_a_providers_key_goes_to_its_own_host_by_https_and_nowhere_else(provider: str, monkeypatch: pytest.MonkeyPatch):
    own = Target(f"{provider}:m", base_url=AT_THEIR_OWN[provider] if provider == "azure" else None)
    assert url_of(own) == AT_THEIR_OWN[provider]
    with pytest.raises(BadInput, match=f"set {KEY_VARIABLES[provider]} in the environment"):
        key_of(own)
    monkeypatch.setenv(KEY_VARIABLES[provider], "theirs")
    assert key_of(own) == "theirs"
    host = AT_THEIR_OWN[provider].removeprefix("https://")
    foreign = ("https://gateway.example/v1", f"http://{host}", f"https://{host.partition('/')[0]}.evil.example/v1")
    for url in foreign:
        with pytest.raises(BadInput, match="which key belongs to"):
            key_of(Target(f"{provider}:m", base_url=url))
    monkeypatch.setenv("OTHER_KEY", "others")
    assert key_of(Target(f"{provider}:m", base_url=foreign[0], key_variable="OTHER_KEY")) == "others"


def test_awss_credentials_go_to_bedrocks_own_hosts_only_and_are_looked_for_before_a_call(
    monkeypatch: pytest.MonkeyPatch,
):
    own = Target("bedrock:m", base_url="https://bedrock-runtime.eu-central-1.amazonaws.com")
    with pytest.raises(BadInput, match="no AWS credentials; set AWS_BEARER_TOKEN_BEDROCK"):
        key_of(own)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws")
    assert key_of(own) == CHAIN
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "a-token")
    assert key_of(own) == "a-token"
    hosts = (
        "bedrock-runtime.eu-central-1.amazonaws.com.evil.example",
        "s3.eu-central-1.amazonaws.com",
        "gateway.example",
    )
    for host in hosts:
        with pytest.raises(BadInput, match="which key belongs to"):
            key_of(Target("bedrock:m", base_url=f"https://{host}"))


def test_an_openai_accounts_organization_stays_at_openai(
    server: ProviderServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-ours")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "a-token-of-azure")
    for provider in CHATTING:
        ask(provider)
    ask("azure", request(1), query="?api-version=2024-10-21")
    said = json.dumps([dict(asked.headers) for each in server.asked.values() for asked in each])
    assert "of-ours" not in said and "a-token-of-azure" not in said


def test_every_provider_a_use_case_may_name_can_be_asked():
    assert set(HOSTED) == set(PROVIDERS)
