"""The parts of a URI. It touches no file, no network."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets


def is_s3(uri: str) -> bool:
    """Whether it names an S3 object or prefix."""
    return uri.startswith("s3://")


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
