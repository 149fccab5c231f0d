"""Where models answer whose host depends on an account, a region or a machine, told from an environment.

It asks nobody and reads no environment itself: the variables are handed in. What it tells becomes the model's
`base_url`, so that residency, keys and every machine that works on the climb go by one address.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from leastwise.errors import BadInput
from leastwise.use_case.hosts import ADDRESSED

ADDRESS_VARIABLES = {"azure": "AZURE_OPENAI_ENDPOINT", "ollama": "OLLAMA_BASE_URL", "vllm": "VLLM_BASE_URL"}
AZURE_VERSION_VARIABLE = "OPENAI_API_VERSION"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def addressed(raw: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, object]:
    """The fields of a use case with the address of every model that has none and needs one; BadInput names each that
    lacks it. What is no model at all is left for whoever checks the fields.
    """
    problems: list[str] = []

    def of_model(model: object, where: str) -> object:
        if not isinstance(model, Mapping) or model.get("base_url"):
            return model
        provider, _, name = str(model.get("uri") or "").partition(":")
        if provider not in ADDRESSED or name.startswith("//"):
            return model
        url = address_of(provider, environment)
        if url is None:
            problems.append(f"{where}: {model['uri']} has no address; {_remedy(provider)}")
        return {**model, "base_url": url}

    def within(part: str, name: str) -> dict[str, object]:
        held = raw.get(part)
        listed = held.get(name) if isinstance(held, Mapping) else None
        if not isinstance(held, Mapping) or not isinstance(listed, list):
            return {}
        return {part: {**held, name: [of_model(each, f"{part}.{name}.{at}") for at, each in enumerate(listed)]}}

    changed = {**raw, **within("models", "candidates"), **within("judge", "models")}
    if problems:
        raise BadInput("; ".join(problems))
    return changed


def address_of(provider: str, environment: Mapping[str, str]) -> str | None:
    """The address of a provider's endpoint as its own variables tell it; None where they do not.

    Azure's carries the version of the interface as `?api-version=`, where one is set: without, it is asked by its
    version-less /openai/v1. Bedrock's is that of the region, never what AWS_ENDPOINT_URL says.
    """
    if provider == "bedrock":
        region = next((environment[name] for name in REGION_VARIABLES if environment.get(name)), None)
        return None if region is None else bedrock_url(region)
    url, version = environment.get(ADDRESS_VARIABLES[provider]), environment.get(AZURE_VERSION_VARIABLE)
    if not url:
        return None
    parts = urlsplit(url)
    if provider == "azure" and version and not parts.query and not parts.path.rstrip("/").endswith("/v1"):
        return f"{url.rstrip('/')}?{urlencode({'api-version': version})}"
    return url


def bedrock_url(region: str) -> str:
    """Bedrock's endpoint in a region; China's regions have a domain of their own."""
    return f"https://bedrock-runtime.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _remedy(provider: str) -> str:
    if provider == "bedrock":
        return f"set base_url on it ({bedrock_url('REGION')}), or {' or '.join(REGION_VARIABLES)} in the environment"
    return f"set base_url on it, or {ADDRESS_VARIABLES[provider]} in the environment"
