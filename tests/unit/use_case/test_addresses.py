"""Models whose host depends on account, region or machine get their address from the environment, or are named."""

from typing import Any

import pytest

from leastwise.errors import BadInput
from leastwise.use_case.hosts import HOSTED, PROVIDERS_HOSTS, address_of, addressed, provider_of
from leastwise.use_case.model import Model, check_model_uri
from leastwise.use_case.requirements import Bound, Requirements, Residency

ENDPOINT = "AZURE_OPENAI_ENDPOINT"
AZURE = "https://res.openai.azure.com"


def case(*candidates: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "n", "models": {"candidates": list(candidates), "embedder": "package://e"}, **more}


@pytest.mark.parametrize(
    ("provider", "environment", "url"),
    [
        ("azure", {"AZURE_OPENAI_ENDPOINT": AZURE}, AZURE),
        (
            "azure",
            {"AZURE_OPENAI_ENDPOINT": f"{AZURE}/", "OPENAI_API_VERSION": "2024-10-21"},
            f"{AZURE}?api-version=2024-10-21",
        ),
        ("azure", {"AZURE_OPENAI_ENDPOINT": f"{AZURE}/openai/v1/", "OPENAI_API_VERSION": "v"}, f"{AZURE}/openai/v1/"),
        (
            "azure",
            {"AZURE_OPENAI_ENDPOINT": f"{AZURE}?api-version=a", "OPENAI_API_VERSION": "b"},
            f"{AZURE}?api-version=a",
        ),
        ("azure", {"OPENAI_API_VERSION": "v"}, None),
        ("bedrock", {"AWS_DEFAULT_REGION": "eu-central-1"}, "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        (
            "bedrock",
            {"AWS_REGION": "cn-north-1", "AWS_DEFAULT_REGION": "us-east-1"},
            "https://bedrock-runtime.cn-north-1.amazonaws.com.cn",
        ),
        ("bedrock", {"AWS_ENDPOINT_URL": "https://elsewhere.example"}, None),
        ("ollama", {"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1"}, "http://127.0.0.1:11434/v1"),
        ("vllm", {"VLLM_BASE_URL": ""}, None),
    ],
)
def test_an_address_is_what_the_providers_own_variables_say(
    provider: str, environment: dict[str, str], url: str | None
):
    assert address_of(provider, environment) == url


def test_what_has_an_address_or_needs_none_stays_as_it_is_written():
    raw = case(
        {"uri": "azure:d", "base_url": "https://gw.example"}, {"uri": "openai:m"}, {"uri": "package://m"}, "no model"
    )
    assert addressed(raw, {"AZURE_OPENAI_ENDPOINT": AZURE}) == raw
    for broken in ({}, {"models": None}, {"models": {"candidates": 3}}, {"judge": [], "models": {"candidates": [{}]}}):
        assert addressed(broken, {}) == broken


def test_every_model_without_an_address_is_named_with_its_remedy_in_one_report():
    raw = case({"uri": "azure:d"}, {"uri": "openai:m"}, {"uri": "bedrock:m"}, judge={"models": [{"uri": "vllm:j"}]})
    with pytest.raises(BadInput) as refusal:
        addressed(raw, {})
    for words in ("models.candidates.0: azure:d", "AZURE_OPENAI_ENDPOINT", "AWS_REGION", "judge.models.0: vllm:j"):
        assert words in str(refusal.value)
    known = addressed(
        raw, {"AZURE_OPENAI_ENDPOINT": AZURE, "AWS_REGION": "eu-west-1", "VLLM_BASE_URL": "http://gpu:8000/v1"}
    )
    assert known["models"]["candidates"][0]["base_url"] == AZURE  # type: ignore[index]
    assert known["judge"]["models"][0]["base_url"] == "http://gpu:8000/v1"  # type: ignore[index]


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("res.openai.azure.com", "azure"),
        ("RES.services.ai.azure.com.", "azure"),
        ("openai.azure.com.evil.example", None),
        ("resopenai.azure.com", None),
        ("bedrock-runtime.eu-central-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime-fips.us-east-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "bedrock"),
        ("vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", "bedrock"),
        ("bedrock-runtime.evil.example.amazonaws.com", None),
        ("evil.example/bedrock-runtime.us-east-1.amazonaws.com", None),
        ("bucket.s3.amazonaws.com", None),
        *((host, provider) for provider, host in PROVIDERS_HOSTS.items()),
    ],
)
def test_whose_host_it_is_is_told_by_the_whole_name(host: str, owner: str | None):
    assert provider_of(host) == owner


def test_residency_binds_every_provider_by_the_host_that_is_asked():
    bound = Bound(bound=0.8, margin=0.1)
    limits = Residency(venues=("api",), hosts=("res.openai.azure.com", "openrouter.ai"))
    allows = Requirements(quality=bound, residency=limits).residency
    assert allows is not None
    assert allows.allows(Model(uri="azure:d", base_url=AZURE)) and allows.allows(Model(uri="openrouter:a/b"))
    for uri, url in (("azure:d", "https://other.openai.azure.com"), ("azure:d", None), ("deepseek:m", None)):
        assert not allows.allows(Model(uri=uri, base_url=url)), (uri, url)
    with pytest.raises(ValueError, match=r"self_host is declared, and requests go to openrouter\.ai"):
        Model(uri="openrouter:a/b", venue="self_host")
    with pytest.raises(ValueError, match=r"requests go to res\.openai\.azure\.com"):
        Model(uri="azure:d", base_url=AZURE, host="other.openai.azure.com")


@pytest.mark.parametrize(
    ("uri", "kin"),
    [
        ("bedrock:us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude"),
        ("azure:our-gpt4o", "gpt"),
        ("openrouter:meta-llama/llama-3.3-70b-instruct", "llama"),
        ("fireworks:accounts/fireworks/models/qwen3-235b", "qwen"),
        ("deepseek:deepseek-chat", "deepseek"),
        ("vllm:in-house", "in-house"),
        ("openai:m", "gpt"),
    ],
)
def test_whose_model_it_is_at_heart_is_told_from_its_name_whoever_serves_it(uri: str, kin: str):
    assert Model(uri=uri, base_url="https://gw.example").kin == kin


def test_every_provider_is_a_model_uri_and_one_that_needs_its_own_package_says_what_to_write_instead():
    for provider in HOSTED:
        check_model_uri(f"{provider}:some/name:1")
    with pytest.raises(ValueError, match=r"openai:m with base_url: https://api.groq.com/openai/v1 .* GROQ_API_KEY"):
        check_model_uri("groq:m")
    with pytest.raises(ValueError, match="azure:name"):
        check_model_uri("nobody:m")
