"""The host a request goes to, told from an address as a client would read it, and whether a list of hosts allows it.

It looks nothing up: names are compared as written, but for case, a port, a trailing dot and how an address is spelt.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

PROVIDERS_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "google": "generativelanguage.googleapis.com",
    "openrouter": "openrouter.ai",
    "together": "api.together.xyz",
    "fireworks": "api.fireworks.ai",
    "deepseek": "api.deepseek.com",
}
# Whose host depends on the account, the region or the machine: an address has to be given (see `addresses.py`).
ADDRESSED = ("azure", "bedrock", "ollama", "vllm")
HOSTED = (*PROVIDERS_HOSTS, *ADDRESSED)
_AZURE = re.compile(r"\.(openai\.azure\.com|services\.ai\.azure\.com|cognitiveservices\.azure\.com)$")
_BEDROCK = re.compile(
    r"^bedrock-runtime(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$|\.bedrock-runtime\.[a-z0-9-]+\.vpce\.amazonaws\.com$"
)
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
