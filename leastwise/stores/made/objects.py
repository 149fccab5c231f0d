"""Whole models on S3: a folder put below a prefix, file by file. It fetches none: `storage.fetch` does."""

from __future__ import annotations

from pathlib import Path

from leastwise.stores import s3
from leastwise.stores.uris import bucket_and_key


def put(folder: Path, uri: str) -> None:
    """Upload every file of a folder below an `s3://` prefix; BadInput where it is refused, ConnectionError where S3 is
    away.
    """
    bucket, key = bucket_and_key(uri)
    try:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = f"{key.rstrip('/')}/{file.relative_to(folder).as_posix()}"
            s3.client().upload_file(str(file), bucket, name)
    except Exception as error:
        if not s3.is_s3_error(error):
            raise
        raise s3.in_words(uri, error) from error
