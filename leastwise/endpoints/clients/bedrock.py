"""Bedrock's Converse interface through AWS's SDK: its client with retries off and its calls watched, and whether AWS's
own chain of credentials has any.

It sends nothing. Credentials of the chain are for Bedrock's own hosts; to any other only the bearer token goes that a
model names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leastwise.endpoints.clients.openai_like import inferred
from leastwise.endpoints.failure import note_answered, note_sent
from leastwise.errors import BadInput
from leastwise.redaction import hide

if TYPE_CHECKING:
    from pydantic_ai.models import Model

CHAIN = "AWS's chain of credentials"  # in place of a key
TOKEN_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"  # noqa: S105 (a variable's name)
MOST_CONNECTIONS = 256
_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


def credential_of(uri: str) -> str:
    """What is sent to Bedrock's own host: its bearer token where one is set, else CHAIN; BadInput where that is empty.

    The chain is AWS's: variables, profiles, roles of the machine, which it may ask the machine's metadata for.
    """
    if token := os.environ.get(TOKEN_VARIABLE):
        hide(token)
        return token
    import boto3

    if boto3.Session().get_credentials() is None:
        raise BadInput(
            f"{uri}: no AWS credentials; set {TOKEN_VARIABLE}, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
            "profile or role, as for any AWS client"
        )
    return CHAIN


def bedrock_client(url: str, credential: str, timeout_s: float) -> Any:
    """A client of this address that tries nothing again, its calls watched as those of the other clients are."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    how: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "max_pool_connections": MOST_CONNECTIONS}
    how |= {"read_timeout": timeout_s, "connect_timeout": min(timeout_s, 60.0)}
    how |= {} if credential == CHAIN else {"signature_version": UNSIGNED}
    client = boto3.Session().client("bedrock-runtime", region_of(url), endpoint_url=url, config=Config(**how))
    if credential != CHAIN:
        client.meta.events.register("before-call.bedrock-runtime", partial(_bear, credential))
    client.meta.events.register("before-send.bedrock-runtime", _sent)
    client.meta.events.register("response-received.bedrock-runtime", _received)
    return client


def bedrock_model(name: str, client: Any) -> Model:
    """The model as the provider layer asks it."""
    from pydantic_ai.providers.bedrock import BedrockProvider

    return inferred("bedrock", name, BedrockProvider(bedrock_client=client))


def region_of(url: str) -> str:
    """The region an address of Bedrock's is in; of any other address one must be named all the same."""
    told = _REGION.search(urlsplit(url).hostname or "")
    return told[1] if told else "us-east-1"


def _bear(token: str, params: dict[str, Any], **_: object) -> None:
    """As AWS's SDK does it itself where an address is https; a gateway on this machine is none."""
    params["headers"]["Authorization"] = f"Bearer {token}"


def _sent(**_: object) -> None:
    note_sent()


def _received(response_dict: Mapping[str, Any] | None = None, **_: object) -> None:
    if response_dict is not None:
        note_answered(int(response_dict["status_code"]), bytes(response_dict.get("body") or b""))
