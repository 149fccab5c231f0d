"""Where models answer whose host depends on an account, a region or a machine, told from a use case or an environment.

It asks nobody and reads no environment itself: the variables are handed in. What it tells becomes the model's
`base_url`, so that residency, keys and every machine that works on the climb go by one address.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.use_case.hosts import ADDRESSED
from leastwise.use_case.model import Model
from leastwise.use_case.use_case import UseCase

ADDRESS_VARIABLES = {"azure": "AZURE_OPENAI_ENDPOINT", "ollama": "OLLAMA_BASE_URL", "vllm": "VLLM_BASE_URL"}
AZURE_VERSION_VARIABLE = "OPENAI_API_VERSION"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def addressed(use_case: UseCase, environment: Mapping[str, str]) -> UseCase:
    """The use case with the address of every model that has none and needs one; BadInput names each that lacks it."""
    models, judge, problems = use_case.models, use_case.judge, list[str]()

    def with_address(model: Model, where: str) -> Model:
        provider = model.uri.partition(":")[0]
        if model.is_open or model.base_url or provider not in ADDRESSED:
            return model
        url = address_of(provider, environment)
        if url is None:
            problems.append(f"{where}: {model.uri} has no address; {_remedy(provider)}")
            return model
        try:
            return Model.model_validate(model.model_dump() | {"base_url": url})
        except ValidationError as error:
            problems.append(f"{where}: {model.uri} at {url}: {error.errors()[0]['msg']}")
            return model

    candidates = tuple(with_address(model, f"models.candidates.{at}") for at, model in enumerate(models.candidates))
    judges = tuple(with_address(model, f"judge.models.{at}") for at, model in enumerate(judge.models if judge else ()))
    if problems:
        raise BadInput("; ".join(problems))
    changed: dict[str, object] = {}
    if candidates != models.candidates:
        changed["models"] = models.model_copy(update={"candidates": candidates})
    if judge and judges != judge.models:
        changed["judge"] = judge.model_copy(update={"models": judges})
    return use_case.model_copy(update=changed) if changed else use_case


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
