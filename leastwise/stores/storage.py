"""Reads and writes bytes, files, folders and tables by URI: local paths, `file://` and `s3://` through boto3.

It keeps no catalogue, no versions and no cache, and does not know models (`hf://`, `package://`) or providers. S3 is
configured the way boto3 itself is (`AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, profiles, roles). What a person can
put right raises `BadInput` with the URI and the remedy; an unreachable server, an outage, raises `ConnectionError`.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_CHUNK_BYTES = 1 << 20


def home() -> Path:
    """The folder of all local state: `LEASTWISE_HOME`, else `.leastwise` under the current folder; absolute."""
    return Path(os.environ.get("LEASTWISE_HOME") or ".leastwise").expanduser().resolve()


def resolve(uri: str, base_dir: str | Path) -> str:
    """An absolute path or URI: `${VAR}` expanded, a relative path taken from `base_dir` (folder or `s3://` prefix).

    `${LEASTWISE_HOME}` is `home()` whether or not it is set. Any other unset variable raises `BadInput`.
    """
    expanded = _VARIABLE.sub(lambda match: _variable(match.group(1), uri), uri)
    if _SCHEME.match(expanded):
        return expanded
    if str(base_dir).startswith("s3://") and not Path(expanded).expanduser().is_absolute():
        bucket, key = _s3_parts(str(base_dir))
        return f"s3://{bucket}/{posixpath.normpath(posixpath.join(key, expanded))}"
    return str((Path(_local(str(base_dir))) / Path(expanded).expanduser()).resolve())


def exists(uri: str | Path) -> bool:
    """Whether a file, an object, a folder or a non-empty prefix is there. Refused access raises `BadInput`."""
    uri = str(uri)
    if not _is_s3(uri):
        return _local(uri).exists()
    with _explained(uri):
        return next(_objects(uri), None) is not None


def read_bytes(uri: str | Path) -> bytes:
    """The content of one file or object."""
    uri = str(uri)
    with _explained(uri):
        if not _is_s3(uri):
            return _local(uri).read_bytes()
        bucket, key = _s3_parts(uri)
        body: bytes = _client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes one file or object whole or not at all; a local file is on disk when this returns."""
    uri = str(uri)
    with _explained(uri):
        if _is_s3(uri):
            bucket, key = _s3_parts(uri)
            _client().put_object(Bucket=bucket, Key=key, Body=data)
        else:
            _replace(_local(uri), lambda part: _write_synced(part, data))


def fetch(uri: str | Path, to_dir: str | Path) -> Path:
    """A local path of what `uri` names: itself if local, else the object or prefix downloaded below `to_dir`."""
    uri = str(uri)
    with _explained(uri):
        if not _is_s3(uri):
            path = _local(uri)
            path.stat()
            return path
        bucket, key = _s3_parts(uri)
        target = Path(to_dir).resolve() / posixpath.basename(key.rstrip("/"))
        found = list(_objects(uri))
        if not found:
            raise BadInput(f"{_shown(uri)}: no such object or prefix. Check bucket and key, or upload it first.")
        for name in found:
            path = _below(target, name.removeprefix(key.rstrip("/")).lstrip("/"), uri)
            _replace(path, lambda part, name=name: _client().download_file(bucket, name, str(part)))  # type: ignore[misc]
        return target


def store(path: str | Path, uri: str | Path) -> None:
    """Copies a local file or folder to `uri`. A local folder of that name is replaced; S3 objects are overwritten."""
    path, uri = Path(path), str(uri)
    with _explained(str(path)):
        path.stat()
    with _explained(uri):
        if not _is_s3(uri):
            _replace(_local(uri), lambda part: _copy(path, part))
            return
        bucket, key = _s3_parts(uri)
        for file in _files(path):
            name = key if file == path else posixpath.join(key, file.relative_to(path).as_posix())
            _client().upload_file(str(file), bucket, name)


def read_table(uri: str | Path) -> pd.DataFrame:
    """A data frame from `.parquet`, `.csv` (UTF-8, every column text, only empty cells missing) or `.jsonl`."""
    import pandas as pd

    readers: dict[str, Callable[[BytesIO], Any]] = {
        ".parquet": pd.read_parquet,
        ".csv": lambda data: pd.read_csv(data, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig"),
        ".jsonl": lambda data: pd.read_json(data, lines=True, dtype=False, convert_dates=False),
    }
    reader = readers.get(posixpath.splitext(str(uri))[1].lower())
    if reader is None:
        raise BadInput(f"{_shown(str(uri))}: unknown kind of table. Use a file ending in {', '.join(readers)}.")
    data = read_bytes(uri)
    try:
        return reader(BytesIO(data))  # type: ignore[no-any-return]
    except Exception as error:  # each reader raises its own kinds: pyarrow, pandas, UnicodeDecodeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{_shown(str(uri))}: unreadable table ({reason}). Write the file again or fix it.") from error


def write_table(table: pd.DataFrame, uri: str | Path) -> None:
    """Write a table as Parquet, in one step: a reader never sees half of it."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(uri, buffer.getvalue())


def sha256(uri: str | Path) -> str:
    """Hex digest of a file or object; of a folder or prefix, the digest of its sorted names and digests."""
    uri = str(uri)
    with _explained(uri):
        if _is_s3(uri):
            bucket, key = _s3_parts(uri)
            digests = {
                name.removeprefix(key).lstrip("/"): _digest(_client().get_object(Bucket=bucket, Key=name)["Body"])
                for name in _objects(uri)
            }
        else:
            path = _local(uri)
            path.stat()
            digests = {
                "" if file == path else file.relative_to(path).as_posix(): _file_digest(file) for file in _files(path)
            }
    if not digests:
        raise BadInput(f"{_shown(uri)}: nothing there to hash. Check the name.")
    if list(digests) == [""]:
        return digests[""]
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def check_writable(directory: str | Path) -> None:
    """Raises `BadInput` unless files can be created there; creates nothing that stays."""
    uri = str(directory)
    with _explained(uri):
        if _is_s3(uri):
            bucket, key = _s3_parts(posixpath.join(uri, ".leastwise-write-probe"))
            _client().put_object(Bucket=bucket, Key=key, Body=b"")
            _client().delete_object(Bucket=bucket, Key=key)
            return
        path = _local(uri).absolute()
        nearest = next(parent for parent in (path, *path.parents) if parent.exists())
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass


def _variable(name: str, uri: str) -> str:
    value = str(home()) if name == "LEASTWISE_HOME" else os.environ.get(name)
    if not value:
        raise BadInput(f"{uri}: environment variable {name!r} is not set. Set it, or write the path out.")
    return value


def _is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def _shown(uri: str) -> str:
    """The URI without user name, password or query, any of which can carry a secret."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _local(uri: str) -> Path:
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise BadInput(f"{_shown(uri)}: not an absolute file URI. Write file:///absolute/path or a plain path.")
        return Path(unquote(parts.path))
    if "://" in uri:
        raise BadInput(f"{_shown(uri)}: unknown storage. Use a local path, file:// or s3://.")
    return Path(uri).expanduser()


def _s3_parts(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket:
        raise BadInput(f"{_shown(uri)}: not of the form s3://bucket/key. Put credentials into the environment.")
    return bucket, key


def _client() -> Any:
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


def _objects(uri: str) -> Iterator[str]:
    """Keys at exactly this name, or below it as a folder; a key that merely starts alike is not meant."""
    bucket, key = _s3_parts(uri)
    folder = f"{key.rstrip('/')}/" if key else ""
    for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key.rstrip("/")):
        for item in page.get("Contents", []):
            name = item["Key"]
            if (name == key or name.startswith(folder)) and not name.endswith("/"):
                yield name


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _below(folder: Path, name: str, uri: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise BadInput(f"{_shown(uri)}: object {name!r} would land outside {folder}. Rename it.")
    return path


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary neighbour of `path`, then renames it: no reader sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as scratch:
        part = Path(scratch) / path.name
        write(part)
        if path.is_dir():
            path.rename(Path(scratch) / ".old")  # rename(2) does not replace a folder that has content
        part.rename(path)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise BadInput(f"{_shown(uri)}: {_LOCAL_REMEDY[type(error)]}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("botocore", "boto3", "s3transfer"):
            raise
        raise _s3_error(uri, error) from error


_LOCAL_REMEDY = {
    FileNotFoundError: "no such file or folder. Check the name, or create it (`make data` for the embedded data).",
    NotADirectoryError: "a file stands where a folder is needed. Choose another path, or move the file away.",
    IsADirectoryError: "a folder stands where a file is needed. Name a file in it.",
    PermissionError: "no permission. Grant this user access, or choose another path (LEASTWISE_HOME moves the state).",
}
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_REFUSED = {"403", "401", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"}
_WITHOUT_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}


def _s3_error(uri: str, error: Exception) -> Exception:
    """The cause in words; never the service's own text, which may repeat parts of the request."""
    response = getattr(error, "response", None) or {}
    code, kind = str(response.get("Error", {}).get("Code", "")), type(error).__name__
    if not code and "(" in str(error):  # s3transfer wraps the answer: "An error occurred (AccessDenied) when …"
        code = str(error).partition("(")[2].partition(")")[0]
    if code in _MISSING:
        return BadInput(f"{_shown(uri)}: no such object or bucket ({code}). Check bucket and key, or upload it first.")
    if code in _REFUSED:
        return BadInput(
            f"{_shown(uri)}: access refused ({code}). Check AWS_ACCESS_KEY_ID, its secret and the bucket policy."
        )
    if kind in _WITHOUT_CREDENTIALS:
        return BadInput(
            f"{_shown(uri)}: no usable S3 credentials ({kind}). Set AWS_ACCESS_KEY_ID and its secret, or a profile."
        )
    if kind in _UNREACHABLE:
        return ConnectionError(
            f"{_shown(uri)}: S3 does not answer ({kind}). Check AWS_ENDPOINT_URL_S3 and the network."
        )
    return OSError(f"{_shown(uri)}: S3 failed ({code or kind}).")
