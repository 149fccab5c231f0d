"""A real S3 server for those that share files between machines."""

from collections.abc import Iterator

import pytest

from tests.servers.s3_server import S3, s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        yield s3
