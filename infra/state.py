"""What the servers need before they start: their databases in Postgres, and the bucket of MLflow's artifacts.

`python -m infra.state` makes what is missing and leaves what is there; STATE_WITHIN_S (120) is how long it waits for
servers that are still starting. It makes no tables: Prefect, MLflow and the ledger make their own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from leastwise.errors import BadInput
from leastwise.redaction import redacted
from leastwise.stores import s3
from leastwise.stores.uris import bucket_and_key

DATABASES = ("prefect", "mlflow", "mlflow_auth", "leastwise")
POLL_S = 0.5


def make_databases(url: str) -> list[str]:
    """Those of DATABASES that were missing. `url`: of any database of that server; its user may create databases."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        missing = [name for name in DATABASES if name not in there]
        for name in missing:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return missing


def make_bucket(uri: str) -> list[str]:
    """The bucket of an s3:// address, if it was missing. A filer that does not write yet raises as S3's errors do."""
    bucket, _ = bucket_and_key(uri)
    client = s3.client()
    there = {each["Name"] for each in client.list_buckets().get("Buckets", ())}
    if bucket not in there:
        client.create_bucket(Bucket=bucket)
    return [] if bucket in there else [bucket]


def awaited(what: str, make: Callable[[], list[str]], within_s: float) -> None:
    """Make it as soon as its server answers. BadInput with the server's last words where it does not in time."""
    until = time.monotonic() + within_s
    while True:
        try:
            made = make()
            print(f"{what}: {', '.join(made) or 'nothing'} made", file=sys.stderr)
            return
        except Exception as error:  # psycopg's, botocore's or the network's: until they start all of them are raised
            if time.monotonic() > until:
                raise BadInput(f"{what}: {redacted(str(error))[:500]}") from None
            time.sleep(POLL_S)


def main() -> int:
    """Exit status: 0 all is there, 2 a server did not answer or refused."""
    try:
        within_s = float(os.environ.get("STATE_WITHIN_S") or 120)
        for what, variable, make in (
            ("databases", "LEASTWISE_STATE", make_databases),
            ("bucket", "MLFLOW_ARTIFACTS_DESTINATION", make_bucket),
        ):
            address = os.environ.get(variable, "")
            if not address:
                raise BadInput(f"{variable} is not set; it says where the {what} are to be")
            if variable == "LEASTWISE_STATE":
                address = address.rpartition("/")[0] + "/postgres"
            elif not address.startswith("s3://"):
                continue
            awaited(what, lambda make=make, address=address: make(address), within_s)
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
