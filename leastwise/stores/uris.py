"""The parts of a URI and what is shown of it, or of any text that may hold a secret. It touches no file, no network."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"]+(?=@)"), "***"),  # user and password of a URI
    (re.compile(r"(?i)((?:bearer|basic)\s+)[\w.~+/=-]{8,}"), r"\1***"),
    (
        re.compile(
            r"(?i)([\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d|signature)['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;)}]{6,}"
        ),
        r"\1***",
    ),
    (re.compile(r"\b(?:sk|pk|rk|hf|ghp|gho|xox[a-z])[-_][\w-]{12,}"), "***"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bAIza[\w-]{20,}"), "***"),
)
_LEAST_SECRET_CHARACTERS = 6


def blotted(text: str) -> str:
    """A text without what looks like a secret in it, and without the value of any environment variable named as one."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for value in sorted((each for each in values if len(each) >= _LEAST_SECRET_CHARACTERS), key=len, reverse=True):
        text = text.replace(value, "***")
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def is_s3(uri: str) -> bool:
    """Whether it names an S3 object or prefix."""
    return uri.startswith("s3://")


def without_secrets(uri: str) -> str:
    """The URI without user name, password or query, any of which can carry a secret."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def local_path(uri: str) -> Path:
    """The path that a plain path or a `file://` URI names; BadInput for any other scheme."""
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise BadInput(
                f"{without_secrets(uri)}: not an absolute file URI. Write file:///absolute/path or a plain path."
            )
        return Path(unquote(parts.path))
    if "://" in uri:
        raise BadInput(f"{without_secrets(uri)}: unknown storage. Use a local path, file:// or s3://.")
    return Path(uri).expanduser()


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI; BadInput without a bucket or with credentials in it."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket:
        raise BadInput(
            f"{without_secrets(uri)}: not of the form s3://bucket/key. Put credentials into the environment."
        )
    return bucket, key
