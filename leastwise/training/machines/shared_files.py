"""Files where every machine of a training reaches them (`file://` or `s3://`): put whole, listed last, removed.

A folder counts once its list of digests is there, which is written last; what was cut off or changed does not match it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores import s3, storage
from leastwise.stores.uris import is_s3, local_path


def put_file(file: Path, uri: str) -> None:
    """A file put whole or not at all."""
    if is_s3(uri):
        s3.upload(file, uri)
        return
    target = local_path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(file, part)
    part.replace(target)


def remove(uri: str) -> None:
    """Removes a file, or a folder with all below it; none is no failure."""
    if is_s3(uri):
        s3.remove(uri)
    elif (path := local_path(uri)).is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def put_folder(folder: Path, files: Iterable[Path], uri: str) -> None:
    """These files of a folder, then the list that makes them count."""
    digests = {path.relative_to(folder).as_posix(): storage.sha256(path) for path in sorted(files)}
    for name in digests:
        put_file(folder / name, f"{uri}/{name}")
    storage.write_bytes(f"{uri}.json", json.dumps(digests, indent=1).encode())


def fetch_folder(uri: str, to: Path) -> Path:
    """The folder of that URI, in one of its name below `to`. BadInput where it is not there, or not what was put."""
    digests = json.loads(storage.read_bytes(f"{uri}.json"))
    here, found = to / uri.rpartition("/")[2], storage.fetch(uri, to)
    if found.resolve() != here.resolve():
        shutil.copytree(found, here)
    there = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    changed = sorted(
        name for name, digest in digests.items() if name not in there or storage.sha256(here / name) != digest
    )
    if changed:
        raise BadInput(f"{without_secrets(uri)}: {changed[0]} is not what was put there")
    return here
