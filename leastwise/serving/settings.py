"""What may be set of an endpoint, and the keys that open it. It starts nothing."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.redaction import hide
from leastwise.use_case.settings import Hosting

LEAST_KEY_CHARACTERS = 16


class EndpointSettings(Part):
    """How an endpoint listens, what it takes, and what it keeps of the requests it answered."""

    host: str = Field("127.0.0.1", description="Address to listen on. Any other than this machine's own needs a key.")
    port: int = Field(8100, ge=0, le=65535, description="Port to listen on; 0 takes any that is free.")
    workers: int = Field(1, ge=1, le=64, description="Processes that answer; each opens the model itself.")
    key_variable: str = Field(
        "LEASTWISE_ENDPOINT_KEYS",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the keys a caller may show (Authorization: Bearer KEY), separated by "
        "spaces or commas, at least 16 characters each.",
    )
    key_file: str = Field("", description="File with such keys, one a line; beside or instead of the variable.")
    most_body_bytes: int = Field(2_000_000, ge=1_000, le=100_000_000, description="A longer request is refused, 413.")
    most_text_characters: int = Field(50_000, ge=1, le=10_000_000, description="A longer text is refused, 400.")
    most_rows: int = Field(1_000, ge=1, le=100_000, description="Rows of one /invocations request; more are refused.")
    most_in_flight: int = Field(
        256, ge=1, le=10_000, description="Requests a worker has in flight; what is beyond is told to come back, 503."
    )
    answer_timeout_s: float = Field(60.0, ge=0.1, le=3600, description="Seconds an answer may take; then 504.")
    body_timeout_s: float = Field(10.0, ge=0.1, le=600, description="Seconds in which a request must have come; 408.")
    drain_s: float = Field(30.0, ge=0, le=3600, description="Seconds that requests in flight get when it ends.")
    poll_s: float = Field(1.0, ge=0.1, le=2.0, description="How often the registry is asked which version to serve.")
    start_timeout_s: float = Field(300.0, ge=1, le=7200, description="Seconds in which a new version must answer.")
    smoke_text: str = Field(
        "Are you there?", min_length=1, description="What a new version is asked before it serves; it must answer."
    )
    challenger_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the traffic that the alias challenger answers; by hash of the user, else the request's "
        "id, else the text, so that the same one is always answered by the same.",
    )
    shadow_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of what the champion answers that is put to the challenger too; its answer is only logged. "
        "It is paid for.",
    )
    most_shadows: int = Field(16, ge=1, le=1_000, description="Shadow requests in flight; what is beyond is left out.")
    trace_rate: float = Field(1.0, ge=0, le=1, description="Share of the requests that become traces in NAME-live.")
    most_traces_per_s: float = Field(
        2.0, ge=0, le=1_000, description="Traces a second and worker at most: each takes 10 ms of processor time."
    )
    traffic_log: str = Field(
        "${LEASTWISE_HOME}/traffic",
        description="Folder or s3:// prefix of the traffic log, in it NAME/date=YYYY-MM-DD/; empty: none is kept.",
    )
    part_every_s: float = Field(
        60.0, ge=1, le=3600, description="Seconds after which logged rows become a Parquet file."
    )

    @field_validator("host")
    @classmethod
    def _host_is_an_address(cls, host: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9.:-]+", host):
            raise ValueError("is no host name and no address")
        return host

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def asks_challenger(self) -> bool:
        """Whether the challenger is kept open too."""
        return self.challenger_share > 0 or self.shadow_share > 0


def keys_of(settings: EndpointSettings) -> tuple[str, ...]:
    """The keys that open an endpoint; BadInput where one is too short, or none is set and others could reach it."""
    keys = [*_split(os.environ.get(settings.key_variable, "")), *_split(_text_of(settings.key_file))]
    where = f"{settings.key_variable} or settings.key_file"
    short = [number for number, key in enumerate(keys, 1) if len(key) < LEAST_KEY_CHARACTERS or not key.isascii()]
    if short:
        raise BadInput(
            f"{where}: key {short[0]} has less than {LEAST_KEY_CHARACTERS} characters, or others than ASCII; make one "
            'with `python -c "import secrets; print(secrets.token_urlsafe(32))"`'
        )
    if not keys and not settings.is_local:
        raise BadInput(
            f"settings.host: {settings.host} can be reached by others and no key is set; set {where}, or listen on "
            "127.0.0.1"
        )
    for key in keys:
        hide(key)
    return tuple(dict.fromkeys(keys))


def settings_of(hosting: Hosting) -> EndpointSettings:
    """How the endpoint listens that self_host leaves running; BadInput where others could reach it without a key."""
    settings = EndpointSettings(host=hosting.endpoint_host, port=hosting.endpoint_port)
    try:
        keys_of(settings)
    except BadInput as error:
        said = str(error).replace("settings.host", "hosting.endpoint_host").replace(" or settings.key_file", "")
        raise BadInput(said) from None
    return settings


def _split(text: str) -> Sequence[str]:
    return [key for key in re.split(r"[\s,]+", text) if key]


def _text_of(file: str) -> str:
    if not file:
        return ""
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"settings.key_file: {file} cannot be read ({type(error).__name__}); correct the path") from None
