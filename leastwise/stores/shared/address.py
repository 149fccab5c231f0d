"""Where the shared state is: LEASTWISE_STATE taken apart, so that its password goes to the driver and is shown nowhere.

It connects to nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from leastwise.errors import BadInput
from leastwise.redaction import hide

VARIABLE = "LEASTWISE_STATE"
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
OPTIONS = frozenset({"host", "sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "application_name"})
PATIENCE_S, LEAST_PATIENCE_S, MOST_PATIENCE_S = 60.0, 0.5, 90.0  # below the time after which others give one up
REMEDY = f"write {VARIABLE}=postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or unset it to keep the state in files"


@dataclass(frozen=True)
class Address:
    """A database, as the driver takes it and as people may see it. `patience_s`: how long it may be away."""

    options: tuple[tuple[str, str], ...] = field(repr=False)
    shown: str
    patience_s: float = PATIENCE_S


def address() -> Address | None:
    """The address that LEASTWISE_STATE names; None where the state is in files. BadInput where it is none."""
    text = os.environ.get(VARIABLE, "").strip()
    return parsed(text) if text else None


def parsed(text: str) -> Address:
    """A URL as an address; its password is hidden from now on wherever something is shown."""
    try:
        url = urlsplit(text)
        port = str(url.port or 5432)
    except ValueError as error:
        raise BadInput(f"{VARIABLE}: is no address of a database ({_reason(error)}); {REMEDY}") from None
    if url.scheme not in SCHEMES:
        raise BadInput(f"{VARIABLE}: {url.scheme or 'without a scheme, it'} is no database that is known; {REMEDY}")
    for secret in {url.password or "", unquote(url.password or "")}:
        hide(secret)
    asked = dict(parse_qsl(url.query, keep_blank_values=True))
    patience_s, host = _patience_s(asked.pop("patience_s", "")), url.hostname or asked.get("host", "")
    database = unquote(url.path.removeprefix("/"))
    if not (host and database):
        raise BadInput(f"{VARIABLE}: names no {'database' if host else 'host'}; {REMEDY}")
    if foreign := sorted(asked.keys() - OPTIONS):
        raise BadInput(f"{VARIABLE}: {foreign[0]} is no option; there are patience_s, {', '.join(sorted(OPTIONS))}")
    options = {"host": host, "port": port, "dbname": database} | _who(url) | asked
    return Address(tuple(options.items()), f"postgresql://{host}:{port}/{database}", patience_s)


def _who(url: SplitResult) -> dict[str, str]:
    named = {"user": url.username, "password": url.password}
    return {name: unquote(value) for name, value in named.items() if value}


def _patience_s(text: str) -> float:
    try:
        seconds = float(text or PATIENCE_S)
    except ValueError:
        seconds = -1.0
    if not LEAST_PATIENCE_S <= seconds <= MOST_PATIENCE_S:
        raise BadInput(
            f"{VARIABLE}: patience_s is {text!r}; give seconds from {LEAST_PATIENCE_S:g} to {MOST_PATIENCE_S:g}"
        )
    return seconds


def _reason(error: ValueError) -> str:
    """Without the text itself, which may hold a password."""
    return "the port is no number" if "port" in str(error).lower() else "it cannot be read"
