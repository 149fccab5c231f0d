"""Keys and passwords taken out of text that people, logs and MLflow see. It decides nothing about who may have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "***"
LEAST_SECRET = 6  # characters: shorter ones (placeholders) would blot out ordinary words
_QUERY_NAME = r"(?:key(?:[-_]?id)?|token|secret|password|passwd|pwd|sig|signature|credential)s?"
_QUERY = re.compile(r"[?#]")
_IN_QUERY = re.compile(rf"([?&;][^=&\s]*{_QUERY_NAME}=)[^&\s'\"]+", re.IGNORECASE)
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s'\"@]*:[^/\s'\"@]*@", re.IGNORECASE)
_WEB_USER = re.compile(r"(\b(?:https?|s3)://)[^/\s'\"@]+@", re.IGNORECASE)
_NAMED = re.compile(
    r"([\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d|signature)['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;)}]{6,}",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_SHAPED = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|r8|xox[a-z])[-_][-_A-Za-z0-9*.]{8,}|"
    r"\b(?:hf|AIza|ghp|gho|glpat|AKIA|ASIA)[-_]?[A-Za-z0-9_-]{12,}"
)
_known: set[str] = set()


def hide(secret: str) -> None:
    """From now on this value is taken out wherever it appears."""
    if len(secret) >= LEAST_SECRET:
        _known.add(secret)


def hide_all(environment: Mapping[str, str]) -> None:
    """Hide the values of variables whose names say that they hold a secret."""
    for name, value in environment.items():
        if _SECRET_VARIABLE.search(name):
            hide(value)


def redacted(text: str) -> str:
    """The text without credentials in URIs, values of `hide`, what is named as a secret and what looks like a key."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in (_USER_INFO, _WEB_USER):
        text = pattern.sub(rf"\1{HIDDEN}@", text)
    for pattern in (_IN_QUERY, _BEARER, _NAMED):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _SHAPED.sub(HIDDEN, text)


def without_secrets(uri: str) -> str:
    """A URI as a link or a line may show it: without user, password, query or fragment, which can carry a secret.

    The path of a database file is left as it is.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.startswith("sqlite"):
        return uri
    host, slash, path = rest.partition("/")
    return scheme + mark + _QUERY.split(f"{host.rpartition('@')[2]}{slash}{path}", maxsplit=1)[0]


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a key or a password."""
    return re.search(rf"{_QUERY_NAME}$", name, re.IGNORECASE) is not None


def holds_credentials(uri: str) -> bool:
    """Whether a web address carries a user, a password, or a key in its query."""
    parts = urlsplit(uri)
    names = (name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return "@" in parts.netloc or any(is_secret_name(name) for name in names)
