"""The S3 client that boto3 makes of the environment, the objects below a prefix, and S3's errors in words.

It reads no content (see `leastwise.stores.storage`) and takes no credentials but boto3's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores.uris import bucket_and_key

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_REFUSED = {"403", "401", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"}
_WITHOUT_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}


def client() -> Any:
    """boto3's client, one for each set of AWS variables in the environment."""
    environment = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return _client_of(hashlib.sha256(repr(environment).encode()).hexdigest())


@lru_cache(maxsize=4)
def _client_of(_environment: str) -> Any:
    import boto3
    from botocore.config import Config

    own_endpoint = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    # A server of one's own rarely has a DNS name per bucket, so the bucket goes into the path there.
    style = {"addressing_style": "path" if own_endpoint else "auto"}
    config = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=10, read_timeout=60, s3=style)
    return boto3.session.Session().client("s3", config=config, region_name=_region(own_endpoint))


def _region(own_endpoint: bool) -> str | None:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return region or ("us-east-1" if own_endpoint else None)


def objects(uri: str) -> Iterator[str]:
    """Keys at exactly this name, or below it as a folder; a key that merely starts alike is not meant."""
    bucket, key = bucket_and_key(uri)
    folder = f"{key.rstrip('/')}/" if key else ""
    for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key.rstrip("/")):
        for item in page.get("Contents", []):
            name = item["Key"]
            if (name == key or name.startswith(folder)) and not name.endswith("/"):
                yield name


def upload(file: Path, uri: str) -> None:
    """Puts a file of any size there, in parts where it is large; what fails is raised in words."""
    bucket, key = bucket_and_key(uri)
    try:
        client().upload_file(str(file), bucket, key)
    except Exception as error:
        if not is_s3_error(error):
            raise
        raise in_words(uri, error) from error


def remove(uri: str) -> None:
    """Removes the object of this name and all below it; none is no failure."""
    bucket, _ = bucket_and_key(uri)
    try:
        for key in list(objects(uri)):
            client().delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        if not is_s3_error(error):
            raise
        raise in_words(uri, error) from error


def is_s3_error(error: Exception) -> bool:
    """Whether it is boto3's own, or one of the libraries it is made of."""
    return type(error).__module__.split(".")[0] in ("botocore", "boto3", "s3transfer")


def in_words(uri: str, error: Exception) -> Exception:
    """The cause in words; never the service's own text, which may repeat parts of the request."""
    from botocore.exceptions import ClientError

    kind = type(error).__name__
    code = str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
    if not code and "(" in str(error):  # s3transfer wraps the answer: "An error occurred (AccessDenied) when …"
        code = str(error).partition("(")[2].partition(")")[0]
    if code in _MISSING:
        return BadInput(
            f"{without_secrets(uri)}: no such object or bucket ({code}). Check bucket and key, or upload it first."
        )
    if code in _REFUSED:
        return BadInput(
            f"{without_secrets(uri)}: access refused ({code}). "
            "Check AWS_ACCESS_KEY_ID, its secret and the bucket policy."
        )
    if kind in _WITHOUT_CREDENTIALS:
        return BadInput(
            f"{without_secrets(uri)}: no usable S3 credentials ({kind}). "
            "Set AWS_ACCESS_KEY_ID and its secret, or a profile."
        )
    if kind in _UNREACHABLE:
        return ConnectionError(
            f"{without_secrets(uri)}: S3 does not answer ({kind}). Check AWS_ENDPOINT_URL_S3 and the network."
        )
    return OSError(f"{without_secrets(uri)}: S3 failed ({code or kind}).")
