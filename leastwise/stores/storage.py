"""Reads and writes bytes, files and folders by URI: local paths, `file://` and `s3://` through boto3.

It keeps no catalogue, no versions and no cache, and does not know models (`hf://`, `package://`) or providers. S3 is
configured the way boto3 itself is (`AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, profiles, roles). What a person can
put right raises `BadInput` with the URI and the remedy; an unreachable server, an outage, raises `ConnectionError`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores import s3
from leastwise.stores.uris import bucket_and_key, is_s3, local_path

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_CHUNK_BYTES = 1 << 20
LEAST_FREE_BYTES = 50_000_000  # the databases of Prefect and MLflow take 7 MB, answers and files of a small climb more


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
        bucket, key = bucket_and_key(str(base_dir))
        return f"s3://{bucket}/{posixpath.normpath(posixpath.join(key, expanded))}"
    return str((Path(local_path(str(base_dir))) / Path(expanded).expanduser()).resolve())


def exists(uri: str | Path) -> bool:
    """Whether a file, an object, a folder or a non-empty prefix is there. Refused access raises `BadInput`."""
    uri = str(uri)
    if not is_s3(uri):
        return local_path(uri).exists()
    with _explained(uri):
        return next(s3.objects(uri), None) is not None


def files_below(uri: str | Path) -> list[str]:
    """The files or objects below a folder or prefix, in the order of their names; nothing hidden, none for a file."""
    uri = str(uri)
    with _explained(uri):
        if is_s3(uri):
            bucket, key = bucket_and_key(uri)
            names = [name for name in s3.objects(uri) if name != key]
            return [f"s3://{bucket}/{name}" for name in sorted(names) if not _is_hidden(name.removeprefix(key))]
        path = local_path(uri)
        below = _files(path) if path.is_dir() else []
        return [str(file) for file in below if not _is_hidden(file.relative_to(path).as_posix())]


def read_bytes(uri: str | Path) -> bytes:
    """The content of one file or object."""
    uri = str(uri)
    with _explained(uri):
        if not is_s3(uri):
            return local_path(uri).read_bytes()
        bucket, key = bucket_and_key(uri)
        body: bytes = s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body


@contextmanager
def opened(uri: str | Path) -> Iterator[IO[bytes]]:
    """A file to read and seek in; an object is downloaded to a temporary file for as long as the block lasts."""
    uri = str(uri)
    with ExitStack() as stack:
        with _explained(uri):
            if not is_s3(uri):
                file: IO[bytes] = stack.enter_context(local_path(uri).open("rb"))
            else:
                file = stack.enter_context(tempfile.TemporaryFile())
                bucket, key = bucket_and_key(uri)
                s3.client().download_fileobj(bucket, key, file)
                file.seek(0)
        yield file


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Writes one file or object whole or not at all; a local file is on disk when this returns."""
    uri = str(uri)
    with _explained(uri):
        if is_s3(uri):
            bucket, key = bucket_and_key(uri)
            s3.client().put_object(Bucket=bucket, Key=key, Body=data)
        else:
            _replace(local_path(uri), lambda part: _write_synced(part, data))


def fetch(uri: str | Path, to_dir: str | Path) -> Path:
    """A local path of what `uri` names: itself if local, else the object or prefix downloaded below `to_dir`."""
    uri = str(uri)
    with _explained(uri):
        if not is_s3(uri):
            path = local_path(uri)
            path.stat()
            return path
        bucket, key = bucket_and_key(uri)
        target = Path(to_dir).resolve() / posixpath.basename(key.rstrip("/"))
        names = list(s3.objects(uri))
        if not names:
            raise BadInput(
                f"{without_secrets(uri)}: no such object or prefix. Check bucket and key, or upload it first."
            )
        for name in names:
            path = _below(target, name.removeprefix(key.rstrip("/")).lstrip("/"), uri)
            _replace(path, partial(_download, bucket, name))
        return target


def sha256(uri: str | Path) -> str:
    """Hex digest of a file or object; of a folder or prefix, the digest of its sorted names and digests."""
    uri = str(uri)
    with _explained(uri):
        if is_s3(uri):
            bucket, key = bucket_and_key(uri)
            digests = {
                name.removeprefix(key).lstrip("/"): _digest(s3.client().get_object(Bucket=bucket, Key=name)["Body"])
                for name in s3.objects(uri)
            }
        else:
            path = local_path(uri)
            path.stat()
            digests = {
                "" if file == path else file.relative_to(path).as_posix(): _file_digest(file) for file in _files(path)
            }
    if not digests:
        raise BadInput(f"{without_secrets(uri)}: nothing there to hash. Check the name.")
    if list(digests) == [""]:
        return digests[""]
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def check_writable(directory: str | Path) -> None:
    """Raises `BadInput` unless files can be created there; creates nothing that stays."""
    uri = str(directory)
    with _explained(uri):
        if is_s3(uri):
            bucket, key = bucket_and_key(posixpath.join(uri, ".leastwise-write-probe"))
            s3.client().put_object(Bucket=bucket, Key=key, Body=b"")
            s3.client().delete_object(Bucket=bucket, Key=key)
            return
        path = local_path(uri).absolute()
        nearest = next(parent for parent in (path, *path.parents) if parent.exists())
        with tempfile.NamedTemporaryFile(dir=nearest):
            pass


def check_room(directory: Path, least_bytes: int = LEAST_FREE_BYTES) -> None:
    """Raises `BadInput` where a local folder's file system has less room: what runs would stop in the middle."""
    folder = directory.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    if free < least_bytes:
        raise BadInput(
            f"{directory}: the disk is full ({free / 1e6:,.1f} MB free, to begin at least {least_bytes / 1e6:,.0f} MB "
            "are needed). Free some space, or move the state with LEASTWISE_HOME."
        )


def _variable(name: str, uri: str) -> str:
    value = str(home()) if name == "LEASTWISE_HOME" else os.environ.get(name)
    if not value:
        raise BadInput(f"{uri}: environment variable {name!r} is not set. Set it, or write the path out.")
    return value


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    # Not rglob: it raises where a folder goes while it is read, as those do in which a file is being written.
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sorted(file for file in below if file.is_file())


def _below(folder: Path, name: str, uri: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise BadInput(f"{without_secrets(uri)}: object {name!r} would land outside {folder}. Rename it.")
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


def _download(bucket: str, name: str, to: Path) -> None:
    s3.client().download_file(bucket, name, str(to))


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise BadInput(f"{without_secrets(uri)}: {_LOCAL_REMEDY[type(error)]}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise BadInput(f"{without_secrets(uri)}: {_LOCAL_REMEDY[PermissionError]}") from error
        if not s3.is_s3_error(error):
            raise
        raise s3.in_words(uri, error) from error


_LOCAL_REMEDY = {
    FileNotFoundError: "no such file or folder. Check the name, or create it (`make data` for the embedded data).",
    NotADirectoryError: "a file stands where a folder is needed. Choose another path, or move the file away.",
    IsADirectoryError: "a folder stands where a file is needed. Name a file in it.",
    PermissionError: "no permission. Grant this user access, or choose another path (LEASTWISE_HOME moves the state).",
}
