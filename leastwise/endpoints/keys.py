"""Whose key goes where: a provider's key to the provider's own hosts, any other host's from the variable a model names.

It keeps no key, and what it hands out is taken out of everything that is said (see `leastwise.redaction`).
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from leastwise.endpoints.request import Provider, Target
from leastwise.errors import BadInput
from leastwise.redaction import hide
from leastwise.use_case import UseCase

NO_KEY = "none"  # what clients are given that refuse to start without one
OWN_URL: dict[Provider, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
KEY_VARIABLES: dict[str, str] = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "generativelanguage.googleapis.com": "GOOGLE_API_KEY",
}


def url_of(target: Target) -> str:
    """Where the target is asked; never what an SDK would take from the environment instead."""
    return target.base_url or OWN_URL[target.provider]


def is_own_host(target: Target) -> bool:
    """Whether it is asked at its maker's own address."""
    return _variable_of_host(url_of(target)) is not None


def key_of(target: Target) -> str:
    """The key to send. BadInput where a host would need one that nobody has named, or a variable is not set."""
    if target.api_key:
        return target.api_key
    if target.key_variable == NO_KEY:
        return NO_KEY
    variable = target.key_variable or _variable_of_host(url_of(target))
    if variable is None:
        return _key_of_nobody(target)
    key = os.environ.get(variable)
    if not key:
        raise BadInput(f"{target.uri}: no API key; set {variable} in the environment")
    hide(key)
    return key


def check_keys(use_case: UseCase) -> None:
    """BadInput, before anything is spent, for a model whose key nobody has named or whose named variable is not set.

    A provider's own key at its own host is looked for when it is asked: a climb may end before that.
    """
    judge = use_case.judge_model
    for model in (*filter(use_case.may_be_sent_to, use_case.models.candidates), *filter(None, [judge])):
        if model.base_url or model.key_variable:
            key_of(Target(model.uri, base_url=model.base_url, key_variable=model.key_variable))


def _key_of_nobody(target: Target) -> str:
    """Own weights and servers on this machine mostly need no key; nobody else's is sent to any other host."""
    host = urlsplit(url_of(target)).hostname or ""
    if "://" in target.uri or is_loopback(host):
        return NO_KEY
    raise BadInput(
        f"{target.uri}: which key belongs to {host}? Set key_variable on the model to the environment variable that "
        "holds it, or to none where it needs no key; a provider's own key is sent to the provider's own host only"
    )


def _variable_of_host(url: str) -> str | None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":  # a key is not sent in the clear
        return None
    return next((name for own, name in KEY_VARIABLES.items() if host == own or host.endswith(f".{own}")), None)


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
