"""The host a request goes to, told from an address as a client would read it, whether a list of hosts allows it, and
the address itself where it depends on an account, a region or a machine: it becomes the model's `base_url`, so that
residency, keys and every machine that works on a climb go by one.

It looks nothing up, and variables are handed in: names are compared as written, but for case, a port, a trailing dot
and how an address is spelt.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlencode, urlsplit

from leastwise.errors import BadInput

PROVIDERS_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "google": "generativelanguage.googleapis.com",
    "openrouter": "openrouter.ai",
    "together": "api.together.xyz",
    "fireworks": "api.fireworks.ai",
    "deepseek": "api.deepseek.com",
}
OWN_NETWORK = (".internal", ".local", ".lan", ".localdomain", ".svc", ".home.arpa", ".intranet", ".corp", ".test")
DECISION_HOSTS = {  # of decision models, at a provider whose other models have a name of their own
    "openai-decisions": PROVIDERS_HOSTS["openai"],
    "google-decisions": PROVIDERS_HOSTS["google"],
}
# Whose host depends on the account, the region or the machine: an address has to be given (see `addressed`).
ADDRESSED = ("azure", "bedrock", "ollama", "vllm", "system-one")
HOSTED = (*PROVIDERS_HOSTS, *DECISION_HOSTS, *ADDRESSED)
DECIDING = (*DECISION_HOSTS, "system-one")  # their models write nothing: they say how likely each label is
_AZURE = re.compile(r"\.(openai\.azure\.com|services\.ai\.azure\.com|cognitiveservices\.azure\.com)$")
_BEDROCK = re.compile(
    r"^bedrock-runtime(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$|\.bedrock-runtime\.[a-z0-9-]+\.vpce\.amazonaws\.com$"
)
ADDRESS_VARIABLES = {
    "azure": "AZURE_OPENAI_ENDPOINT",
    "ollama": "OLLAMA_BASE_URL",
    "vllm": "VLLM_BASE_URL",
    "system-one": "SYSTEM_ONE_BASE_URL",
}
AZURE_VERSION_VARIABLE = "OPENAI_API_VERSION"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
_UNSAFE = re.compile(r"[\s\\%\x00-\x1f]")  # what one client reads as a part of the host and another does not


def host_of(address: str) -> str:
    """The host of a URL, in one spelling; ValueError where it is not plain which one a client would ask."""
    parts = urlsplit(address)
    if _UNSAFE.search(parts.netloc) or not parts.scheme or not parts.hostname:
        raise ValueError(f"{_shown(address)!r} names no host; write http://host:port/path or https://host/path")
    return same_spelling(parts.hostname)


def same_spelling(host: str) -> str:
    """A host name or IP address, with or without a port, in the one spelling that is compared."""
    name = host.strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.rstrip(".").casefold()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name if name.isascii() else _ascii(name)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_local(host: str) -> bool:
    """Whether requests to this host stay on this machine."""
    name = same_spelling(host)
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_allowed(host: str, hosts: Collection[str]) -> bool:
    """Whether data may go there: this machine always, else what is listed, each name for itself and not for others
    below it.
    """
    return is_local(host) or same_spelling(host) in {same_spelling(each) for each in hosts}


def provider_of(host: str) -> str | None:
    """Whose public interface answers there, as far as it is one that is known; regional names are theirs too."""
    name = same_spelling(host)
    own = next((who for who, known in PROVIDERS_HOSTS.items() if name == known or name.endswith(f".{known}")), None)
    return own or ("azure" if _AZURE.search(name) else "bedrock" if _BEDROCK.search(name) else None)


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _shown(address: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", address)


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


def is_in_own_network(base_url: str | None) -> bool:
    """Whether that is an address which only the own network has."""
    host = (urlsplit(base_url).hostname or "") if base_url else ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(OWN_NETWORK))
